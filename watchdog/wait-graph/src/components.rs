//! Strongly connected components: the sets of nodes that wait for each other.

/// The components of a graph, given as the targets of each node. Sinks come first: a component precedes
/// all that wait for it.
///
/// Tarjan's algorithm (1972), with a stack of its own: a chain of waits may be as long as the capture.
pub(crate) fn components(targets: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        targets,
        number: vec![None; targets.len()],
        low: vec![0; targets.len()],
        is_open: vec![false; targets.len()],
        open: Vec::new(),
        next: 0,
        found: Vec::new(),
    };
    for root in 0..targets.len() {
        if search.number[root].is_none() {
            search.from(root);
        }
    }
    search.found
}

struct Search<'t> {
    targets: &'t [Vec<usize>],
    /// When each node was first seen.
    number: Vec<Option<usize>>,
    /// The earliest number that each can reach among the open nodes.
    low: Vec<usize>,
    is_open: Vec<bool>,
    open: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn from(&mut self, root: usize) {
        // Each entry: a node, and how many of its targets have been followed.
        let mut way = vec![(root, 0)];
        self.enter(root);
        while let Some(&mut (node, ref mut followed)) = way.last_mut() {
            if let Some(&target) = self.targets[node].get(*followed) {
                *followed += 1;
                match self.number[target] {
                    None => {
                        self.enter(target);
                        way.push((target, 0));
                    }
                    Some(number) if self.is_open[target] => {
                        self.low[node] = self.low[node].min(number);
                    }
                    Some(_) => {}
                }
                continue;
            }
            way.pop();
            if let Some(&(before, _)) = way.last() {
                self.low[before] = self.low[before].min(self.low[node]);
            }
            if Some(self.low[node]) == self.number[node] {
                self.close(node);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.number[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.open.push(node);
        self.is_open[node] = true;
    }

    fn close(&mut self, first: usize) {
        let from = self.open.iter().rposition(|&node| node == first).unwrap_or(0);
        let component = self.open.split_off(from);
        component.iter().for_each(|&node| self.is_open[node] = false);
        self.found.push(component);
    }
}
