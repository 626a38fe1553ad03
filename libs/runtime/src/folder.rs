//! Folders of data that is nobody else's business.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

/// Makes `folder` and what is missing above it, for this user only, whatever the umask says; one that is there
/// stays as it is: whoever made it has decided.
///
/// # Errors
/// The file system's.
pub fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_folder_is_made_for_this_user_and_one_that_is_there_is_left_alone() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let above = tempfile::tempdir().unwrap();
        let made = above.path().join("var/data");
        make_private(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o750)).unwrap();
        make_private(&made).unwrap();
        assert_eq!(mode(&made), 0o750);
    }
}
