//! What a segment may be called, and the file names that stand for it.

use std::ffi::OsStr;

/// Where segments live.
pub const SEGMENT_DIR: &str = "/dev/shm";

/// What stands before a segment's name in its file's name.
const FILE_PREFIX: &str = "hangwatch.";

/// The longest name of a segment, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// Why a name cannot be a segment's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name at all.
    #[error("the segment's name is empty; give it one of letters, digits, '.', '_' or '-'")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error(
        "the segment's name is {len} bytes long; shorten it to at most {} bytes",
        MAX_NAME_BYTES
    )]
    TooLong {
        /// The name's length in bytes.
        len: usize,
    },
    /// It would be a hidden file, or a step up the tree.
    #[error("the segment's name {name:?} starts with a dot; start it with a letter or a digit")]
    LeadingDot {
        /// The name.
        name: String,
    },
    /// It would be taken for an option.
    #[error("the segment's name {name:?} starts with a dash; start it with a letter or a digit")]
    LeadingDash {
        /// The name.
        name: String,
    },
    /// A character that a file name or a shell may stumble over.
    #[error("the segment's name {name:?} has {bad:?}; use letters, digits, '.', '_' and '-' only")]
    BadCharacter {
        /// The name.
        name: String,
        /// The first character that cannot be.
        bad: char,
    },
}

/// The name of the file for the segment called `name`.
///
/// # Errors
/// [`NameError`] unless `name` is 1 to 200 bytes of `[A-Za-z0-9._-]`, the first
/// neither a dot nor a dash.
pub fn file_name(name: &str) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { len: name.len() });
    }
    if name.starts_with('.') {
        return Err(NameError::LeadingDot { name: name.to_owned() });
    }
    if name.starts_with('-') {
        return Err(NameError::LeadingDash { name: name.to_owned() });
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|&c| !good(c)) {
        Some(bad) => Err(NameError::BadCharacter { name: name.to_owned(), bad }),
        None => Ok(format!("{FILE_PREFIX}{name}")),
    }
}

/// The segment's name that a file's name stands for, if it does.
pub(super) fn segment_name(file: &OsStr) -> Option<&str> {
    let name = file.to_str()?.strip_prefix(FILE_PREFIX)?;
    file_name(name).is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_name_becomes_a_file_name_and_back() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for name in ["train", "A.b_c-9", "_x-", "0", longest.as_str()] {
            let file = file_name(name).unwrap();
            assert_eq!(file, format!("hangwatch.{name}"));
            assert_eq!(segment_name(OsStr::new(&file)), Some(name));
        }
    }

    #[test]
    fn names_that_could_escape_hide_or_confuse_are_refused() {
        assert_eq!(file_name(""), Err(NameError::Empty));
        assert_eq!(file_name(&"a".repeat(201)), Err(NameError::TooLong { len: 201 }));
        for name in [".", "..", ".hidden"] {
            assert_eq!(file_name(name), Err(NameError::LeadingDot { name: name.into() }));
        }
        assert_eq!(file_name("-x"), Err(NameError::LeadingDash { name: "-x".into() }));
        for (name, bad) in [("a/b", '/'), ("a b", ' '), ("a\0", '\0'), ("é", 'é'), ("a\n", '\n')]
        {
            assert_eq!(file_name(name), Err(NameError::BadCharacter { name: name.into(), bad }));
        }
    }

    #[test]
    fn other_files_stand_for_no_segment() {
        for file in
            ["sem.x", "hangwatch.", "hangwatch..x", "hangwatch.-x", "hangwatch.a b", "xhangwatch.a"]
        {
            assert_eq!(segment_name(OsStr::new(file)), None, "{file}");
        }
    }
}
