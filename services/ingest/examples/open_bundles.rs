//! What `understudy open-bundles` does, for the tests of this service, which are not that executable.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let key_file = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    match understudy_ingest::answer(&key_file, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
