//! A helper process that answers: it reads a question a line, and writes an answer a line.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Answers each question until nobody asks any more. Both are JSON.
///
/// # Errors
/// Where it cannot read or write any more, or a line is no question.
pub fn answer_lines<Q: DeserializeOwned, A: Serialize>(
    questions: impl BufRead,
    mut answers: impl Write,
    mut answer: impl FnMut(Q) -> A,
) -> io::Result<()> {
    for line in questions.lines() {
        serde_json::to_writer(&mut answers, &answer(serde_json::from_str(&line?)?))?;
        answers.write_all(b"\n")?;
        answers.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_answered_on_a_line_of_its_own() {
        let mut answers = Vec::new();
        answer_lines(&b"1\n2\n"[..], &mut answers, |number: u32| format!("{number}\n")).unwrap();
        assert_eq!(answers, b"\"1\\n\"\n\"2\\n\"\n");
        assert!(answer_lines(&b"nonsense\n"[..], &mut answers, |number: u32| number).is_err());
    }
}
