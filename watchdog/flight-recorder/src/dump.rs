//! One rank's dump, as far as it is used: its process groups with their counters, and their entries.
//!
//! The format, from torch's `FlightRecorder.hpp`: `pg_config` describes groups by name, `pg_status` counts
//! by the rank's own number of the group, `entries` carry both. The dump does not name its rank.

use std::collections::{BTreeMap, HashMap};

use crate::pickle::{self, PickleError};
use crate::value::{Arena, Item};

/// More ranks than any job has; a longer list of members is cut.
const RANKS_AT_MOST: usize = 1 << 20;

/// Why a file is not a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Not a pickle of plain data.
    #[error("not a pickle of plain data: {0}")]
    Pickle(#[from] PickleError),
    /// It begins as JSON and is none.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no `pg_status`: something else, or a version before 2.5.
    #[error("no Flight Recorder dump: it lacks {0} (torch 2.5 or later writes it)")]
    Lacks(&'static str),
}

/// A process group, as it is told apart across ranks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// torch's name of it: usually a number.
    pub name: String,
    /// What the program calls it, such as `default_pg`.
    pub description: String,
    /// Its global ranks; empty where the dumps do not record them, as for gloo.
    pub ranks: Vec<u32>,
}

/// A collective operation that a rank has enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collective {
    /// Its number within the group, from 1.
    pub sequence: i64,
    /// Such as `nccl:all_reduce`.
    pub operation: String,
    /// Types of the inputs, comma-separated.
    pub types: String,
    /// Sizes of the inputs, as `[4, 8], [2]`.
    pub sizes: String,
    /// The innermost line outside of torch, as `train.py:41`; empty where no frames were recorded.
    pub line: String,
}

/// A rank's part in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: Group,
    /// Number of the last collective that completed; -1 where none has.
    pub completed: i64,
    /// Number of the last collective that was enqueued; -1 where none was.
    pub enqueued: i64,
    /// Whether the rank has used the group for point-to-point operations.
    pub has_point_to_point: bool,
    /// Its collectives that have not completed, the oldest first, as far as they are recorded.
    pub outstanding: Vec<Collective>,
}

/// What one rank has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The rank in the job.
    pub rank: u32,
    /// Version of the format, such as `2.10`.
    pub version: String,
    /// The groups it is in.
    pub memberships: Vec<Membership>,
    /// Groups whose counters could not be told apart: no entry names them.
    pub unnamed: usize,
}

impl Dump {
    /// Reads the dump of a rank from the bytes of its file: a pickle or JSON.
    ///
    /// # Errors
    /// [`DumpError`] where the bytes are no such dump.
    pub fn parse(rank: u32, bytes: &[u8]) -> Result<Dump, DumpError> {
        let mut arena = Arena::default();
        let root = if bytes.trim_ascii_start().first() == Some(&b'{') {
            arena.adopt(&serde_json::from_slice(bytes)?)
        } else {
            pickle::read(bytes, &mut arena)?
        };
        Parts { arena: &arena, root }.dump(rank)
    }
}

/// A dump's values, and where they stand.
struct Parts<'a> {
    arena: &'a Arena,
    root: Item,
}

/// A group as an entry names it.
type Name = (String, String);

impl Parts<'_> {
    fn dump(&self, rank: u32) -> Result<Dump, DumpError> {
        let status = self.arena.get(self.root, "pg_status");
        if !matches!(status, Item::Map(_)) {
            return Err(DumpError::Lacks("`pg_status`"));
        }
        let status: BTreeMap<i64, Item> = self
            .arena
            .map(status)
            .iter()
            .filter_map(|&(key, value)| Some((self.arena.name(key)?.parse().ok()?, value)))
            .collect();
        let entries = self.entries();
        let names = self.names(&status, &entries);
        let mut unnamed = 0;
        let mut memberships = Vec::new();
        for (local, counts) in &status {
            let Some(name) = names.get(local) else {
                unnamed += 1;
                continue;
            };
            let count = |key| self.arena.int(self.arena.get(*counts, key)).unwrap_or(-1);
            let completed = count("last_completed_collective");
            let own: Vec<Item> = entries.get(local).cloned().unwrap_or_default();
            let (points, collectives): (Vec<Item>, Vec<Item>) =
                own.into_iter().partition(|&entry| self.is_point_to_point(entry));
            memberships.push(Membership {
                group: self.group(name),
                completed,
                enqueued: count("last_enqueued_collective"),
                has_point_to_point: !points.is_empty(),
                outstanding: self.outstanding(&collectives, completed),
            });
        }
        let version = self.arena.name(self.arena.get(self.root, "version")).unwrap_or_default();
        Ok(Dump { rank, version, memberships, unnamed })
    }

    /// The entries by the rank's own number of their group.
    fn entries(&self) -> HashMap<i64, Vec<Item>> {
        let mut entries: HashMap<i64, Vec<Item>> = HashMap::new();
        for &entry in self.arena.list(self.arena.get(self.root, "entries")) {
            if let Some(local) = self.arena.int(self.arena.get(entry, "pg_id")) {
                entries.entry(local).or_default().push(entry);
            }
        }
        entries
    }

    /// Links the rank's own numbers of its groups with their names: by an entry that has both; else by
    /// order, which is that of creation on both sides; number 0 is the default group in any case.
    fn names(
        &self,
        status: &BTreeMap<i64, Item>,
        entries: &HashMap<i64, Vec<Item>>,
    ) -> HashMap<i64, Name> {
        let mut names = HashMap::from([(0, ("0".to_owned(), "default_pg".to_owned()))]);
        names.retain(|local, _| status.contains_key(local));
        let config: Option<Vec<(i64, Name)>> = self
            .config()
            .iter()
            .map(|&(name, of)| {
                let name = self.arena.name(name)?;
                Some((name.parse().ok()?, (name, self.description(of))))
            })
            .collect();
        if let Some(mut config) = config.filter(|config| config.len() == status.len()) {
            config.sort();
            names = status.keys().copied().zip(config.into_iter().map(|(_, name)| name)).collect();
        }
        for (&local, entries) in entries {
            let found = entries.iter().find_map(|&entry| {
                let pair = self.arena.list(self.arena.get(entry, "process_group"));
                let name = self.arena.name(*pair.first()?)?;
                Some((name, self.arena.name(*pair.get(1)?)?))
            });
            names.extend(found.map(|name| (local, name)));
        }
        names
    }

    fn config(&self) -> &[(Item, Item)] {
        self.arena.map(self.arena.get(self.root, "pg_config"))
    }

    fn description(&self, config: Item) -> String {
        self.arena.name(self.arena.get(config, "desc")).unwrap_or_default()
    }

    fn group(&self, (name, description): &Name) -> Group {
        let found =
            self.config().iter().find(|(key, _)| self.arena.name(*key).as_ref() == Some(name));
        let ranks =
            found.map(|&(_, of)| self.ranks(self.arena.get(of, "ranks"))).unwrap_or_default();
        let described = found.map(|&(_, of)| self.description(of)).filter(|it| !it.is_empty());
        let description = described.unwrap_or_else(|| description.clone());
        Group { name: name.clone(), description, ranks }
    }

    /// A list of ranks, or its text: `[0, 2]`.
    fn ranks(&self, item: Item) -> Vec<u32> {
        let text = self.arena.text(item).unwrap_or_default();
        let texts = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        let items = self.arena.list(item).iter();
        let items = items.filter_map(|&rank| u32::try_from(self.arena.int(rank)?).ok());
        let mut ranks: Vec<u32> = texts.chain(items).take(RANKS_AT_MOST).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    fn is_point_to_point(&self, entry: Item) -> bool {
        self.arena.get(entry, "is_p2p") == Item::Bool(true)
    }

    fn outstanding(&self, entries: &[Item], completed: i64) -> Vec<Collective> {
        let mut outstanding: Vec<Collective> = entries
            .iter()
            .filter_map(|&entry| {
                let sequence = self.arena.int(self.arena.get(entry, "collective_seq_id"))?;
                (sequence > completed).then(|| self.collective(entry, sequence))
            })
            .collect();
        outstanding.sort_by_key(|one| one.sequence);
        outstanding.dedup_by_key(|one| one.sequence);
        outstanding
    }

    fn collective(&self, entry: Item, sequence: i64) -> Collective {
        let get = |key| self.arena.get(entry, key);
        let types: Vec<&str> = self
            .arena
            .list(get("input_dtypes"))
            .iter()
            .filter_map(|&item| self.arena.text(item))
            .collect();
        let sizes: Vec<String> = self
            .arena
            .list(get("input_sizes"))
            .iter()
            .map(|&sizes| {
                let sizes: Vec<i64> = self
                    .arena
                    .list(sizes)
                    .iter()
                    .filter_map(|&size| self.arena.int(size))
                    .collect();
                format!("{sizes:?}")
            })
            .collect();
        Collective {
            sequence,
            operation: self.arena.text(get("profiling_name")).unwrap_or_default().to_owned(),
            types: types.join(", "),
            sizes: sizes.join(", "),
            line: self.line(self.arena.list(get("frames"))).unwrap_or_default(),
        }
    }

    /// The innermost frame outside of torch.
    fn line(&self, frames: &[Item]) -> Option<String> {
        frames.iter().find_map(|&frame| {
            let file = self.arena.text(self.arena.get(frame, "filename"))?;
            let line = self.arena.int(self.arena.get(frame, "line"))?;
            let name = file.rsplit('/').next().unwrap_or(file);
            (!file.contains("/torch/")).then(|| format!("{name}:{line}"))
        })
    }
}
