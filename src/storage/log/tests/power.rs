//! Random lives of the log, threads and all, whose power goes at any moment.

use proptest::prelude::*;

use super::*;

/// One step of a random life of the log.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        queues: Vec<u64>,
        len: usize,
        n: usize,
    },
    SettleSome {
        skip: usize,
        n: usize,
    },
    Sync,
    PowerCut {
        seed: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::sample::subsequence(vec![1, 2, 3], 1..=3), 0usize..3000, 1usize..8)
            .prop_map(|(queues, len, n)| Step::Publish { queues, len, n }),
        5 => (0usize..40, 1usize..30).prop_map(|(skip, n)| Step::SettleSome { skip, n }),
        3 => Just(Step::Sync),
        1 => (1u64..u64::MAX).prop_map(|seed| Step::PowerCut { seed }),
        1 => Just(Step::Restart),
    ]
}

/// A copy in the model.
#[derive(Clone, Debug)]
struct Copy {
    id: MessageId,
    queue: u64,
    number: u64,
    published: Lsn,
    settled: Option<Lsn>,
}

/// Forty, or as many as `LEVERET_POWER_CUTS` says.
fn cases() -> u32 {
    std::env::var("LEVERET_POWER_CUTS").map_or(40, |n| n.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever happens: durable copies are there once, in order; durably settled ones are not.
    #[test]
    fn power_cuts_at_any_moment_keep_what_was_durable(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = FaultyDisk::default();
        let (mut log, _) = open(dir.path(), &disk);
        log.recover(&|_| true, &mut |_| {});
        let mut model: Vec<Copy> = Vec::new();
        let mut number = 0;
        let mut records = Records::default();
        let mut last = Lsn::default();
        for step in steps {
            let crash = match step {
                Step::Publish { queues, len, n } => {
                    let first = number;
                    for _ in 0..n {
                        stage(&mut records, message(number, len), &queues);
                        number += 1;
                    }
                    let a = log.append(&mut records).expect("accepted");
                    for i in 0..n as u64 {
                        for q in &queues {
                            let id = MessageId(a.first_id.0 + i);
                            model.push(Copy { id, queue: *q, number: first + i, published: a.lsn, settled: None });
                        }
                    }
                    last = a.lsn;
                    None
                }
                Step::SettleSome { skip, n } => {
                    let open: Vec<usize> = (0..model.len()).filter(|i| model[*i].settled.is_none()).collect();
                    let chosen: Vec<usize> = open.into_iter().skip(skip).take(n).collect();
                    if chosen.is_empty() {
                        continue;
                    }
                    records.settles.extend(chosen.iter().map(|i| (QueueId(model[*i].queue), model[*i].id)));
                    let a = log.append(&mut records).expect("accepted");
                    for i in chosen {
                        model[i].settled = Some(a.lsn);
                    }
                    last = a.lsn;
                    None
                }
                Step::Sync => {
                    wait(&log, last);
                    None
                }
                Step::PowerCut { seed } => Some(Some(seed)),
                Step::Restart => Some(None),
            };
            let Some(power_cut) = crash else { continue };
            let durable = log.durable();
            match power_cut {
                Some(mut seed) => {
                    // What is durable now is at least `durable`; the rest may be there or not.
                    let after = disk.after_power_cut(&mut seed);
                    drop(log);
                    disk = after;
                }
                None => {
                    log.close(&[]).expect("closes");
                    drop(log);
                }
            }
            let clean = power_cut.is_none();
            let (read_whole, _) = open_with(&idle(dir.path()), &disk.without_indexes());
            let by_reading = recovered(&read_whole);
            drop(read_whole);
            log = open(dir.path(), &disk).0;
            let mut found = recovered(&log);
            prop_assert_eq!(&found, &by_reading, "the indexes say something else");
            let is_there = |c: &&Copy| found.get(&c.queue).is_some_and(|have| have.contains(&c.number));
            let newest = model.iter().filter(is_there).map(|c| c.published).max();
            for c in model.iter().filter(|c| c.settled.is_none() && Some(c.published) < newest) {
                prop_assert!(is_there(&c), "{c:?} is lost, later ones are there ({newest:?})");
            }
            for queue in 1..=3 {
                let have = found.remove(&queue).unwrap_or_default();
                prop_assert!(have.is_sorted_by(|a, b| a < b), "once and in order: {have:?}");
                for c in model.iter().filter(|c| c.queue == queue) {
                    let there = have.binary_search(&c.number).is_ok();
                    let must = (clean || c.published <= durable) && c.settled.is_none();
                    let must_not = c.settled.is_some_and(|at| clean || at <= durable);
                    prop_assert!(there || !must, "{c:?} is lost (durable {durable:?})");
                    prop_assert!(!there || !must_not, "{c:?} came back (durable {durable:?})");
                }
                // What is there now is the truth from here on.
                model.retain(|c| c.queue != queue || have.binary_search(&c.number).is_ok());
            }
            last = Lsn::default();
            for c in &mut model {
                c.settled = None;
                c.published = Lsn::default();
            }
        }
    }
}
