//! What processes used, read from `/proc` (proc(5)).

use anyhow::Context;

/// Clock ticks a second in `/proc/<pid>/stat`: Linux shows user space 100 on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that a process has used so far, user and system, its threads included, in seconds.
pub(crate) fn cpu_seconds(pid: i32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name in parentheses may contain anything; the fields after it can't.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| -> anyhow::Result<f64> {
        Ok(fields
            .get(index)
            .context("a shorter line than proc(5) says")?
            .parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Memory of a process that is in RAM (`VmRSS`), in MiB.
pub(crate) fn resident_mib(pid: i32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
