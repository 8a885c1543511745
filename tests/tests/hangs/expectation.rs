//! What is expected of a program, as it is written in it.

use hangwatch_incident::schema::Dump;
use hangwatch_wait_graph::{Kind, Thread};

use crate::program;

/// What `dump` must say.
#[derive(Debug)]
pub(crate) struct Expectation {
    kind: String,
    process: Option<String>,
    threads: Vec<u32>,
    function: Option<String>,
    line: Option<u32>,
}

/// What the kernel keeps of a name.
fn kernels_name(name: &str) -> &str {
    &name[..name.len().min(15)]
}

impl Expectation {
    /// That of a file: `EXPECT deadlock process=bank thread=2,3 function=move_money`.
    pub(crate) fn of(file: &str) -> Expectation {
        let text = program::text(file);
        let line =
            text.lines().find_map(|line| line.split_once(" EXPECT ")).expect("it says EXPECT").1;
        let mut words = line.split_whitespace();
        let kind = words.next().expect("EXPECT is followed by a kind").to_owned();
        let value = |name: &str| {
            let mut pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let threads = value("thread").unwrap_or_default();
        let marked = text.lines().zip(1..).find(|(line, _)| line.trim_end().ends_with("HANGS"));
        Expectation {
            kind,
            process: value("process"),
            threads: threads.split(',').filter_map(|number| number.parse().ok()).collect(),
            function: value("function"),
            line: marked.map(|(_, number)| number),
        }
    }

    /// Whether a dump says so; else what it says instead.
    pub(crate) fn is_met_by(&self, dump: &Dump) -> Result<(), String> {
        let verdict = &dump.waits.verdict;
        if verdict.word() != self.kind {
            return Err(format!("it is a {}, and {} was said", self.kind, verdict.word()));
        }
        if verdict.kind == Kind::NotKnown {
            return Ok(());
        }
        let graph = &dump.waits.graph;
        let mut culprits: Vec<&Thread> = Vec::new();
        for culprit in &verdict.culprits {
            // Something outside is told of the thread that waits for it.
            let whose = culprit.way.last().filter(|_| graph.thread(culprit.nodes[0]).is_none());
            let nodes = whose.map_or(culprit.nodes.clone(), |step| vec![step.from]);
            culprits.extend(nodes.into_iter().filter_map(|node| graph.thread(node)));
        }
        if let Some(process) = &self.process
            && !culprits.iter().all(|it| it.process.starts_with(kernels_name(process)))
        {
            return Err(format!("the culprit is a process called {process}"));
        }
        let mut threads: Vec<u32> = culprits.iter().map(|it| it.number).collect();
        threads.sort_unstable();
        threads.dedup();
        if !self.threads.is_empty() && threads != self.threads {
            return Err(format!("it is threads {:?}, and {threads:?} were named", self.threads));
        }
        let Some(function) = &self.function else { return Ok(()) };
        let is_there = |it: &&Thread| {
            let place = it.place.as_ref();
            place.is_some_and(|place| {
                let is_line = self.line.is_none() || place.line == self.line;
                place.function.contains(function.as_str()) && is_line
            })
        };
        if culprits.iter().any(is_there) {
            return Ok(());
        }
        let places: Vec<_> = culprits.iter().map(|it| &it.place).collect();
        Err(format!("it hangs in {function}, line {:?}, and not in {places:?}", self.line))
    }
}
