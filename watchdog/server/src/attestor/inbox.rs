//! The clerk's inbox: what stands between a deadline and its signal is answered first.
//!
//! A restart asks about every lane at once who owns it: a question about a worker that is overdue now must
//! not wait behind all of them.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::super::messages::Question;

/// Questions, by how long they may wait.
pub(super) struct Inbox {
    questions: Receiver<Question>,
    /// How many are taken out of the channel at most: what has no room there is asked again later.
    room: usize,
    urgent: VecDeque<Question>,
    admissions: VecDeque<Question>,
}

/// Nobody asks any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disconnected;

impl Inbox {
    pub(super) fn new(questions: Receiver<Question>, room: usize) -> Inbox {
        let (urgent, admissions) = (VecDeque::new(), VecDeque::new());
        Inbox { questions, room, urgent, admissions }
    }

    /// Whether something waits that was collected.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.admissions.is_empty()
    }

    /// Takes in what was asked, as far as there is room.
    pub(super) fn collect(&mut self) -> Result<(), Disconnected> {
        while self.urgent.len() + self.admissions.len() < self.room {
            match self.questions.try_recv() {
                Ok(question @ Question::Admit { .. }) => self.admissions.push_back(question),
                Ok(question) => self.urgent.push_back(question),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Disconnected),
            }
        }
        Ok(())
    }

    /// The question to answer next.
    pub(super) fn next(&mut self) -> Option<Question> {
        self.urgent.pop_front().or_else(|| self.admissions.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use hangwatch_core::watchdog::worker::WorkerId;

    use super::*;

    #[test]
    fn a_question_about_an_overdue_worker_is_answered_before_all_admissions() {
        let (sender, questions) = sync_channel(8);
        let mut inbox = Inbox::new(questions, 3);
        for lane in 0..2 {
            sender.send(Question::Admit { lane }).expect("room");
        }
        sender.send(Question::Status { worker: WorkerId(7) }).expect("room");
        sender.send(Question::Admit { lane: 2 }).expect("room");
        assert_eq!(inbox.collect(), Ok(()));
        assert!(matches!(inbox.next(), Some(Question::Status { .. })));
        assert!(matches!(inbox.next(), Some(Question::Admit { lane: 0, .. })));
        assert!(matches!(inbox.next(), Some(Question::Admit { lane: 1, .. })));
        assert!(inbox.next().is_none(), "the fourth found no room yet");
        drop(sender);
        assert_eq!(inbox.collect(), Err(Disconnected));
        assert!(matches!(inbox.next(), Some(Question::Admit { lane: 2, .. })));
    }
}
