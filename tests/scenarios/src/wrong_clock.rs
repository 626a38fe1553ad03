//! A process whose wall clock is off and whose monotonic clocks are right, as on a machine whose time nobody sets:
//! by libfaketime (Debian's package `faketime`), since Linux has one wall clock for all, whatever the namespace.

use std::path::Path;

use understudy_demo::process::Process;

/// Where Debian puts it, below the folder of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Puts a process's wall clock `seconds` ahead, from its next start on; behind, if they are negative.
///
/// # Errors
/// What this machine lacks, in words.
pub fn put_ahead(process: &mut Process, seconds: i32) -> Result<(), String> {
    let library = [
        format!("/usr/lib/{}-linux-gnu/{LIBRARY}", std::env::consts::ARCH),
        format!("/usr/lib/{LIBRARY}"),
        "/usr/lib64/faketime/libfaketimeMT.so.1".to_owned(),
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .ok_or("libfaketime is not here: `make setup` installs it (Debian's package faketime)")?;
    process.set_environment("LD_PRELOAD", &library);
    process.set_environment("FAKETIME", &format!("{seconds:+}"));
    process.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    process.set_environment("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}
