//! Runs seeded schedules of the whole fleet, and tells the story of one that fails.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use understudy_simulation::{Bug, Outcome, Schedule, run, shrink, tell};

/// A hundred thousand schedules are mostly small pieces of memory that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeded faults on the pure machines of the fleet.
#[derive(Parser)]
struct Arguments {
    /// Tell the story of this schedule: a seed, or what a failure was shrunk to.
    #[arg(long, env = "UNDERSTUDY_SEED")]
    seed: Option<Schedule>,
    /// Run this many schedules.
    #[arg(long, default_value_t = 100_000)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run until something fails or somebody ends it.
    #[arg(long)]
    soak: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the schedules took is printed, and nothing is decided by it"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(schedule) = arguments.seed {
        return tell_one(&schedule);
    }
    let mut first = arguments.first;
    loop {
        let began = Instant::now();
        let (sum, failed) = run_all(first, arguments.schedules);
        if let Some(seed) = failed {
            return report(seed);
        }
        println!(
            "{} schedules in {:.1} s",
            arguments.schedules,
            began.elapsed().as_secs_f64()
        );
        println!("{sum}\n{}", sum.visits);
        if !arguments.soak {
            return check_the_checks(&sum);
        }
        first += arguments.schedules;
        println!("no invariant broken up to seed {first}: on it goes");
    }
}

fn tell_one(schedule: &Schedule) -> ExitCode {
    let played = tell(schedule);
    println!("{}", played.story.join("\n"));
    match played.result {
        Ok(()) => {
            println!("no invariant broken: {}", played.outcome);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs schedules on all processors. Answers the lowest seed that failed, if one did.
fn run_all(first: u64, schedules: u64) -> (Outcome, Option<u64>) {
    let next = AtomicU64::new(first);
    let end = AtomicU64::new(first + schedules);
    let sum = Mutex::new(Outcome::default());
    let work = || {
        let mut own = Outcome::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                break;
            }
            match run(&Schedule::of(seed)) {
                Ok(outcome) => own.add(&outcome),
                // Those below it are under way already: the lowest is found whoever runs it.
                Err(_) => {
                    end.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
        sum.lock().expect("no other worker has failed").add(&own);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failed = end.into_inner();
    let sum = sum.into_inner().expect("no worker has failed");
    (sum, (failed < first + schedules).then_some(failed))
}

/// Shrinks a schedule that failed, and tells what is left.
fn report(seed: u64) -> ExitCode {
    eprintln!("seed {seed} fails; it is shrunk");
    if let Some(shrunk) = shrink(&Schedule::of(seed)) {
        eprintln!("{}", shrunk.story.join("\n"));
        eprintln!(
            "\n{}\nagain with: target/debug/understudy-simulation --seed {}\nonce mended, pin it in tests/simulation/pinned.txt",
            shrunk.violation, shrunk.schedule
        );
    }
    ExitCode::FAILURE
}

/// A check that can't fail checks nothing, and a phase in which a fault never struck was not tested.
fn check_the_checks(sum: &Outcome) -> ExitCode {
    let mut all = ExitCode::SUCCESS;
    let caught: Vec<bool> = thread::scope(|scope| {
        let tries: Vec<_> = Bug::OF_INVARIANTS
            .iter()
            .map(|(invariant, bug)| scope.spawn(|| bug.is_caught(*invariant)))
            .collect();
        let caught = tries.into_iter().map(|each| each.join());
        caught.map(|each| each.expect("no check panics")).collect()
    });
    for ((invariant, _), caught) in Bug::OF_INVARIANTS.iter().zip(caught) {
        println!(
            "mutation {invariant}: {}",
            if caught { "caught" } else { "NOT CAUGHT" }
        );
        if !caught {
            all = ExitCode::FAILURE;
        }
    }
    for (phase, fault) in sum.visits.missing() {
        println!("never visited: {} in {phase:?}", fault.words());
        all = ExitCode::FAILURE;
    }
    all
}
