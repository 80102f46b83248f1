//! What a start has found, against what was promised.

use super::super::*;
use super::damage::Hit;
use super::life::{Redelivered, shown};
use super::model::{Copy, Cost, Model, Truth};

/// What is there again.
pub(super) struct Back {
    truth: Truth,
    redelivered: BTreeSet<(u64, u64)>,
    /// Messages that could not be read as they stand in their copies.
    wrong: Vec<(u64, Found)>,
}

/// What was promised, and what was done to it.
pub(super) struct Told {
    pub(super) durable: Lsn,
    pub(super) hit: Option<Hit>,
    pub(super) aside: Vec<PathBuf>,
    /// Of what was set aside.
    pub(super) cost: Cost,
    pub(super) redelivered: Redelivered,
}

/// Whether a message is the one that was published.
pub(super) fn is(m: &Message, copy: &Copy) -> bool {
    let body = m.body();
    let number = copy.number.to_be_bytes();
    body.len() == 8 + copy.len as usize
        && body[..8] == number
        && body[8..].iter().all(|b| *b == number[7])
}

/// What a message is read as now.
pub(super) fn told(_: &[MessageId], id: u64, log: &SegmentedLog) -> String {
    let mut found = Vec::new();
    let read = log.read(&[MessageId(id)], &mut found);
    format!("{found:?} {read:?}")
}

impl Back {
    pub(super) fn of(log: &SegmentedLog, definitions: Vec<Definition>) -> Result<Back, String> {
        let mut truth = Truth::default();
        for (kind, key, value) in definitions {
            truth.definitions.insert((kind, key), value);
        }
        let queues: BTreeSet<u64> = truth.queues().into_iter().collect();
        let mut runs = Vec::new();
        log.recover(&|queue| queues.contains(&queue.0), &mut |run| {
            runs.push(run)
        });
        let (mut ids, mut redelivered) = (BTreeSet::new(), BTreeSet::new());
        let mut last = BTreeMap::new();
        for run in runs {
            for id in run.first_id.0..run.first_id.0 + u64::from(run.count) {
                let at = (run.target.queue.0, id);
                if last.insert(at.0, id) >= Some(id) {
                    return Err(format!("{at:?} comes out of order, or twice"));
                }
                ids.insert(id);
                if run.redelivered {
                    redelivered.insert(at);
                }
                let copy = Copy {
                    number: 0,
                    len: run.body_len.saturating_sub(8),
                    expires_at: run.target.expires_at,
                    priority: run.target.priority,
                    delivery_count: run.target.delivery_count,
                };
                truth.copies.insert(at, copy);
            }
        }
        let ids: Vec<_> = ids.into_iter().map(MessageId).collect();
        let mut read = Vec::new();
        log.read(&ids, &mut read)
            .map_err(|e| format!("read: {e}"))?;
        let mut numbers = BTreeMap::new();
        let mut wrong = Vec::new();
        for (id, found) in ids.iter().zip(read) {
            match found {
                Found::Here(m) if m.body().len() >= 8 => {
                    let copy = Copy {
                        number: number_of(&m),
                        len: m.body().len() as u32 - 8,
                        expires_at: 0,
                        priority: 0,
                        delivery_count: 0,
                    };
                    match is(&m, &copy) {
                        true => drop(numbers.insert(id.0, copy.number)),
                        false => wrong.push((id.0, Found::Here(m))),
                    }
                }
                other => wrong.push((id.0, other)),
            }
        }
        for ((_, id), copy) in &mut truth.copies {
            copy.number = numbers.get(id).copied().unwrap_or(0);
        }
        Ok(Back {
            truth,
            redelivered,
            wrong,
        })
    }
}

/// What differs from a state that may be there: beyond what damage may cost, and within.
#[derive(Debug, Default)]
struct Difference {
    beyond: Vec<String>,
    /// Of what the newest damage alone explains.
    within: u64,
    /// Of what older damage does.
    older: u64,
}

fn differ(back: &Truth, was: &Truth, new: &Cost, old: &Cost, model: &Model) -> Difference {
    let mut found = Difference::default();
    let mut count = |of_new: bool, of_old: bool, what: &dyn Fn() -> String| match (of_new, of_old) {
        (_, true) => found.older += 1,
        (true, false) => found.within += 1,
        _ => found.beyond.push(what()),
    };
    let key_of = |queue: u64| (DefinitionKind::Queue, queue.to_be_bytes().to_vec());
    for (at, copy) in &was.copies {
        let same = back.copies.get(at);
        let gone = |cost: &Cost| cost.lost.contains(&at.1) || cost.keys.contains(&key_of(at.0));
        match same {
            Some(same) if same == copy => {}
            // It is there, and cannot be read.
            Some(same) if same.number == 0 => {
                count(gone(new), gone(old), &|| {
                    format!("{at:?} {copy:?} cannot be read")
                });
            }
            other => count(gone(new), gone(old), &|| {
                format!("{at:?} is {other:?}, was {copy:?}")
            }),
        }
    }
    for (at, copy) in &back.copies {
        if !was.copies.contains_key(at) {
            let mut known = model.by_id.get(&at.1).copied().into_iter();
            let may = known.any(|known| known == *copy || copy.number == 0);
            let may =
                |cost: &Cost| may && (cost.back.contains(at) || cost.keys.contains(&key_of(at.0)));
            count(may(new), may(old), &|| {
                format!("{at:?} {copy:?} has come back")
            });
        }
    }
    let keys: BTreeSet<_> = back
        .definitions
        .keys()
        .chain(was.definitions.keys())
        .collect();
    for key in keys {
        let (is, was) = (back.definitions.get(key), was.definitions.get(key));
        if is != was {
            count(new.keys.contains(key), old.keys.contains(key), &|| {
                format!("{key:?} is {is:?}, was {was:?}")
            });
        }
    }
    found
}

/// The state that is there, and up to which append that is, if a start can know; or what is wrong.
pub(super) fn check(
    model: &mut Model,
    back: &Back,
    log: &SegmentedLog,
    told: Told,
    cost: &mut Cost,
) -> Result<(Truth, Option<Lsn>), String> {
    let mut new = told.cost;
    if let Some(hit) = &told.hit {
        new.add(&hit.cost);
    }
    new.harmed = told.hit.is_some() || !told.aside.is_empty();
    let mut state = model.base.clone();
    let mut at = Lsn::default();
    let n = model.acts.partition_point(|act| act.at <= told.durable);
    for act in &model.acts[..n] {
        state.apply(act);
        at = act.at;
    }
    let mut newer = model.acts[n..].iter();
    let (mut differences, mut fits) = (Vec::new(), None);
    // What fits without any damage goes before what damage explains.
    loop {
        let difference = differ(&back.truth, &state, &new, cost, model);
        let is_exact = difference.within + difference.older == 0;
        if !difference.beyond.is_empty() {
            let beyond = &difference.beyond;
            differences.push(format!("as it was at {}: {beyond:#?}", shown(at)));
        } else if is_exact || fits.is_none() {
            fits = Some((difference, at));
            if is_exact {
                break;
            }
        }
        let Some(act) = newer.next() else { break };
        state.apply(act);
        at = act.at;
    }
    let Some((found, at)) = fits else {
        let all = differences.join("\n");
        return Err(format!(
            "what is there is nothing that was: {all}\n{:?}",
            log.damage()
        ));
    };
    for (id, found) in &back.wrong {
        if !(matches!(found, Found::Lost) && (new.lost.contains(id) || cost.lost.contains(id))) {
            return Err(format!("message {id} is read as {found:?}"));
        }
    }
    let damage = log.damage();
    let noted = log.inner.damaged.lock().expect("a lock").clone();
    let quiet = damage.holes.is_empty() && damage.set_aside.is_empty() && noted.is_empty();
    if !quiet && !new.harmed && !cost.harmed {
        return Err(format!(
            "damage is told of where none is: {damage:?} {noted:?}"
        ));
    }
    if found.within > 0 {
        let is_told = told
            .aside
            .iter()
            .any(|path| damage.set_aside.contains(path))
            || told.hit.as_ref().is_some_and(|hit| {
                let number = super::super::super::damage::number_of(&hit.path).unwrap_or(0);
                !hit.proven
                    || noted.contains(&(number, hit.offset as u32))
                    // Two holes that touch are told as one.
                    || damage.holes.iter().any(|hole| {
                        let within = hole.offset..hole.offset + hole.len.max(1);
                        hole.path == hit.path && within.contains(&hit.offset)
                    })
            });
        if !is_told {
            return Err(format!("a loss is not told of: {damage:?} {noted:?}"));
        }
    }
    if found.older > 0 && quiet && !new.harmed {
        return Err("a loss is not told of any more".into());
    }
    let all: BTreeSet<_> = back.truth.copies.keys().copied().collect();
    // Unless it is told from the end of the log, whether there was more nobody knows: ids of that may be given
    // out again.
    let known = told.hit.is_none_or(|hit| hit.proven);
    let redelivered = match told.redelivered {
        // Where that is said may have been set aside, or cut off with an end that nobody can tell from a torn one.
        _ if !known || !told.aside.is_empty() => back.redelivered.clone(),
        Redelivered::Any => back.redelivered.clone(),
        Redelivered::All => all,
        Redelivered::These(these) => all.intersection(&these).copied().collect(),
    };
    if redelivered != back.redelivered {
        return Err(format!(
            "redelivered are {:?}, not {redelivered:?}",
            back.redelivered
        ));
    }
    cost.add(&new);
    // What is there and cannot be read is as it was.
    let mut base = back.truth.clone();
    for (place, copy) in &mut base.copies {
        if copy.number == 0
            && let Some(known) = model.by_id.get(&place.1)
        {
            *copy = *known;
        }
    }
    Ok((base, known.then_some(at)))
}
