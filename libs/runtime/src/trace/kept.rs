//! Which trace a thing on disk is a part of, in a file beside it: for the process that reads the thing and was sent
//! nothing. It is of little worth, so that it is not synced, and whatever is wrong with it means that there is none.

use std::{fs, io, path::Path};

use super::TraceContext;

/// Keeps in the file `path` that `what` is a part of `context`; that it is a part of none that is recorded, without one.
pub fn keep(path: &Path, what: &str, context: Option<&TraceContext>) {
    let done = match context.filter(|context| context.is_sampled()) {
        Some(context) => {
            let new = path.with_extension("new-trace");
            fs::write(&new, format!("{what} {context}\n")).and_then(|()| fs::rename(&new, path))
        }
        None => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        },
    };
    if let Err(error) = done {
        tracing::debug!(file = %path.display(), %error, "which trace this is a part of could not be kept");
    }
}

/// What `what` is a part of, as the file `path` has it.
#[must_use]
pub fn kept(path: &Path, what: &str) -> Option<TraceContext> {
    let text = fs::read_to_string(path).ok()?;
    let (of, context) = text.trim_end().split_once(' ')?;
    (of == what).then(|| context.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_of_one_thing_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("assignment.trace");
        let sampled: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            .parse()
            .expect("a context");
        assert_eq!(kept(&path, "1.2"), None);
        keep(&path, "1.2", Some(&sampled));
        assert_eq!(kept(&path, "1.2"), Some(sampled));
        assert_eq!(kept(&path, "1.3"), None, "it is of another assignment");
        keep(&path, "1.3", Some(&TraceContext::root()));
        assert!(!path.exists(), "what is not recorded needs none");
        fs::write(&path, "1.3 nonsense").expect("written");
        assert_eq!(kept(&path, "1.3"), None);
    }
}
