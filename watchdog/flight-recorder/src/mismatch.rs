//! Collectives that ranks of a group called differently: an operation, type or size that differs hangs
//! both sides with equal counters.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::dump::{Collective, Membership};
use crate::waits::{Members, is_comparable};

/// Operations whose inputs have the same size on every rank.
const EQUAL_SIZES: [&str; 5] =
    ["all_reduce", "broadcast", "reduce", "_all_gather_base", "_reduce_scatter_base"];

/// One way in which ranks called a collective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Such as `gloo:all_reduce`.
    pub operation: String,
    /// Types of its inputs.
    pub types: String,
    /// Sizes of its inputs; empty where they may differ.
    pub sizes: String,
    /// Who called it so.
    pub ranks: BTreeSet<u32>,
    /// Where one of them called it; empty where no frames were recorded.
    pub line: String,
}

/// A collective that ranks called differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Name and description of the group.
    pub group: String,
    /// Its number within the group.
    pub sequence: i64,
    /// The ways in which it was called, the rarest first.
    pub calls: Vec<Call>,
}

/// The first collective of each group that was called differently and that not all have completed.
pub(crate) fn mismatches(groups: &Members<'_>) -> Vec<Mismatch> {
    let comparable = groups.iter().filter(|(_, members)| is_comparable(members));
    comparable
        .filter_map(|(group, members)| {
            let group = format!("{} ({})", group.description, group.name);
            first(members).map(|(sequence, calls)| Mismatch { group, sequence, calls })
        })
        .collect()
}

fn first(members: &BTreeMap<u32, &Membership>) -> Option<(i64, Vec<Call>)> {
    let mut by_sequence: BTreeMap<i64, Vec<Call>> = BTreeMap::new();
    for (&rank, member) in members {
        for collective in &member.outstanding {
            let calls = by_sequence.entry(collective.sequence).or_default();
            let call = call(collective);
            let same = calls.iter_mut().find(|other| {
                (&other.operation, &other.types, &other.sizes)
                    == (&call.operation, &call.types, &call.sizes)
            });
            match same {
                Some(same) => drop(same.ranks.insert(rank)),
                None => calls.push(Call { ranks: BTreeSet::from([rank]), ..call }),
            }
        }
    }
    let (sequence, mut calls) = by_sequence.into_iter().find(|(_, calls)| calls.len() > 1)?;
    calls.sort_by_key(|call| call.ranks.len());
    Some((sequence, calls))
}

fn call(collective: &Collective) -> Call {
    let operation = collective.operation.clone();
    let plain = operation.rsplit(':').next().unwrap_or(&operation);
    let sizes = if EQUAL_SIZES.contains(&plain) { collective.sizes.clone() } else { String::new() };
    Call {
        types: collective.types.clone(),
        line: collective.line.clone(),
        ranks: BTreeSet::new(),
        operation,
        sizes,
    }
}
