//! The attestor's queue of questions: those between a deadline and its signal are answered first.
//!
//! After a restart the tick asks about every lane at once. A question about an overdue worker must not wait
//! behind them.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::super::messages::Question;

/// Questions, sorted by urgency.
pub(super) struct Inbox {
    questions: Receiver<Question>,
    /// Maximum number of questions taken from the channel. The tick asks again if the channel is full.
    room: usize,
    urgent: VecDeque<Question>,
    admissions: VecDeque<Question>,
}

/// The handle was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disconnected;

impl Inbox {
    pub(super) fn new(questions: Receiver<Question>, room: usize) -> Inbox {
        let (urgent, admissions) = (VecDeque::new(), VecDeque::new());
        Inbox { questions, room, urgent, admissions }
    }

    /// Whether no collected question is left.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.admissions.is_empty()
    }

    /// Takes questions from the channel, up to the limit.
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

    /// Returns the next question to answer.
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
    fn question_about_an_overdue_worker_is_answered_first() {
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
        assert!(inbox.next().is_none(), "the fourth is still in the channel");
        drop(sender);
        assert_eq!(inbox.collect(), Err(Disconnected));
        assert!(matches!(inbox.next(), Some(Question::Admit { lane: 2, .. })));
    }
}
