//! Others who read the rules while many names come.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clock::now;
use enforcer::Enforcer;
use enforcer::writer::{AdmissionRequest, Holder};
use tokio::sync::oneshot;

use crate::namespace::{inside, patience, run, seconds};
use crate::programs::{ONE, desired, element};

#[test]
fn our_rules_can_be_read_beside_three_thousand_new_names_a_second() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let generation = enforcer.install(desired([ONE], 60_000), Vec::new).await.unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let begun = Instant::now();
                let mut waits = Vec::new();
                for number in 0..u16::MAX {
                    if is_over.load(Relaxed) {
                        break;
                    }
                    let due = Duration::from_micros(333) * u32::from(number);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    let mut elements = vec![(element(ONE, number), now() + seconds(1))];
                    let asked = Instant::now();
                    if enforcer.admit_now(generation, &mut elements, Holder(1)).is_none() {
                        let (answer, admitted) = oneshot::channel();
                        enforcer.submit([AdmissionRequest {
                            generation,
                            elements,
                            holder: Holder(1),
                            deadline: patience(),
                            answer: Box::new(answer),
                        }]);
                        let _proof = admitted.blocking_recv().unwrap().unwrap();
                    }
                    waits.push(asked.elapsed());
                }
                waits
            });
            std::thread::sleep(seconds(3));
            let begun = Instant::now();
            let mut reads = 0;
            while reads < 3 && begun.elapsed() < seconds(20) {
                run("nft", &["list", "table", "inet", "namegate"], "").unwrap();
                reads += 1;
            }
            let took = begun.elapsed();
            is_over.store(true, Relaxed);
            let mut waits = load.join().unwrap();
            waits.sort_unstable();
            let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
            println!(
                "{reads} reads in {took:?}; an admission took {:?}, p99 {:?}, p99.9 {:?}",
                at(0.5),
                at(0.99),
                at(0.999)
            );
            assert!(reads == 3 && took < seconds(20), "{reads} reads in {took:?}");
        });
    });
}
