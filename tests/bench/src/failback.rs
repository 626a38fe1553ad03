//! The rate of failback, beside `rsync -a --whole-file` of the same files.
pub(crate) struct Failback {
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: f64,
    pub(crate) bytes_per_second_rsync: f64,
}
