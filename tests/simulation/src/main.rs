//! Runs seeded schedules of the whole fleet, and tells the story of one.

use clap::Parser;
use understudy_simulation::Outcome;

/// Seeded faults on the pure machines of the fleet.
#[derive(Parser)]
struct Arguments {
    /// Tell the story of this seed.
    #[arg(long, env = "UNDERSTUDY_SEED")]
    seed: Option<u64>,
    /// Run this many schedules.
    #[arg(long, default_value_t = 10_000)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let (story, result) = understudy_simulation::tell(seed, None);
        println!("{}\n{result:?}", story.join("\n"));
        return result.map_or(std::process::ExitCode::FAILURE, |_| {
            std::process::ExitCode::SUCCESS
        });
    }
    let mut sum = Outcome::default();
    for seed in arguments.first..arguments.first + arguments.schedules {
        match understudy_simulation::run(seed, None) {
            Ok(outcome) => {
                sum.failovers += outcome.failovers;
                sum.completed += outcome.completed;
                sum.replaced += outcome.replaced;
                sum.taken_again += outcome.taken_again;
                sum.erased += outcome.erased;
                sum.outages += outcome.outages;
                sum.crashes += outcome.crashes;
                sum.ticks += outcome.ticks;
            }
            Err(violation) => {
                eprintln!("seed {seed}: {violation}");
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    println!("{} schedules, no invariant broken: {sum:?}", arguments.schedules);
    std::process::ExitCode::SUCCESS
}
