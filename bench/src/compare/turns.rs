//! Contenders in turns: each on a thread of its own, one at a time, so that what disturbs the machine
//! disturbs all of them.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::results::{Contender, Side};

/// A contender that waits for its turn.
pub struct Player {
    name: String,
    side: Side,
    go: Sender<usize>,
    done: Receiver<f64>,
    turns: Vec<f64>,
}

impl Player {
    /// Starts it. `prepare` runs on its thread and gives what is called each turn: with the number of
    /// operations, for the nanoseconds that each took.
    ///
    /// # Panics
    /// Where there is no thread for it.
    pub fn start<T>(
        name: impl Into<String>,
        side: Side,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> Player
    where
        T: FnMut(usize) -> f64 + 'static,
    {
        let ((go, asked), (tell, done)) = (channel(), channel());
        let body = move || {
            let mut turn = prepare();
            while let Ok(count) = asked.recv() {
                if tell.send(turn(count)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(body).expect("a thread");
        Player { name: name.into(), side, go, done, turns: Vec::new() }
    }

    fn turn(&mut self, count: usize) -> f64 {
        self.go.send(count).expect("it waits for its turn");
        self.done.recv().unwrap_or_else(|_| panic!("{} panicked", self.name))
    }
}

/// Lets everyone have `turns` turns of `count` operations, in an order that moves on by one each
/// time, after one turn that does not count.
pub fn alternate(mut players: Vec<Player>, turns: usize, count: usize) -> Vec<Contender> {
    for player in &mut players {
        player.turn(count);
    }
    let many = players.len();
    for turn in 0..turns {
        for place in 0..many {
            let player = &mut players[(turn + place) % many];
            let ns = player.turn(count);
            player.turns.push(ns);
        }
    }
    players.iter().map(|one| Contender::single(&one.name, one.side, &one.turns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_as_many_turns_and_the_first_does_not_count() {
        let player = |name: &str, first: f64| {
            Player::start(name, Side::Peer, move || {
                let mut next = first;
                move |count| {
                    assert_eq!(count, 5);
                    std::mem::replace(&mut next, 7.0)
                }
            })
        };
        let contenders = alternate(vec![player("a", 1.0), player("b", 2.0)], 3, 5);
        let medians: Vec<_> = contenders.iter().map(|one| one.median(0)).collect();
        assert_eq!(medians, [Some(7.0), Some(7.0)]);
    }
}
