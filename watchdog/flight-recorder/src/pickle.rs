//! The subset of Python's pickle format that holds plain data.
//!
//! See `pickletools` in Python's standard library for the opcodes. Whatever would import a name or call
//! something is refused by its name. Each opcode makes one value at most, so memory is bounded by the
//! input's size.

use std::collections::HashMap;

use crate::value::{Arena, Item};

/// Why a pickle was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It asks for code to be imported or called.
    #[error("byte {at}: opcode {name} would import or call code; a dump is plain data")]
    Refused {
        /// Offset of the opcode.
        at: usize,
        /// Its name in `pickletools`.
        name: &'static str,
    },
    /// No opcode of plain data.
    #[error("byte {at}: no opcode of plain data: {opcode:#04x}")]
    Unknown {
        /// Offset of the opcode.
        at: usize,
        /// The byte found there.
        opcode: u8,
    },
    /// It ends before its end mark.
    #[error("it ends after {at} bytes, in the middle: the rank was still writing, or was killed")]
    Truncated {
        /// Where more was expected.
        at: usize,
    },
    /// An opcode finds nothing to work on.
    #[error("byte {at}: the opcode finds nothing to work on")]
    Malformed {
        /// Offset of the opcode.
        at: usize,
    },
}

/// The opcodes that are refused by name.
fn refused(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'c' => "GLOBAL",
        0x93 => "STACK_GLOBAL",
        b'R' => "REDUCE",
        b'b' => "BUILD",
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' | b'Q' => "PERSID",
        _ => return None,
    })
}

/// Reads one pickle into the arena.
pub(crate) fn read(bytes: &[u8], arena: &mut Arena) -> Result<Item, PickleError> {
    Reader {
        bytes,
        at: 0,
        opcode_at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        arena,
    }
    .run()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    stack: Vec<Item>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    arena: &'a mut Arena,
}

impl Reader<'_> {
    fn run(mut self) -> Result<Item, PickleError> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.array::<1>()?[0];
            if opcode == b'.' {
                return self.pop();
            }
            if let Some(name) = refused(opcode) {
                return Err(PickleError::Refused { at: self.opcode_at, name });
            }
            let done = self.scalar(opcode)? || self.text(opcode)? || self.collection(opcode)?;
            if !done && !self.bookkeeping(opcode)? {
                return Err(PickleError::Unknown { at: self.opcode_at, opcode });
            }
        }
    }

    /// Numbers and constants. Whether the opcode was one.
    fn scalar(&mut self, opcode: u8) -> Result<bool, PickleError> {
        let item = match opcode {
            b'N' => Item::Nothing,
            0x88 => Item::Bool(true),
            0x89 => Item::Bool(false),
            b'K' => Item::Int(self.array::<1>()?[0].into()),
            b'M' => Item::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Item::Int(i32::from_le_bytes(self.array()?).into()),
            b'G' => {
                self.array::<8>()?;
                Item::Float
            }
            0x8a => {
                let length = self.array::<1>()?[0].into();
                self.long(length)?
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?
            }
            _ => return Ok(false),
        };
        self.stack.push(item);
        Ok(true)
    }

    /// A signed integer, least significant byte first.
    fn long(&mut self, length: usize) -> Result<Item, PickleError> {
        let bytes = self.take(length)?;
        if length > 8 {
            return Ok(Item::Nothing);
        }
        let sign = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut word = [sign; 8];
        word[..length].copy_from_slice(bytes);
        Ok(Item::Int(i64::from_le_bytes(word)))
    }

    /// Texts and byte strings. Whether the opcode was one.
    fn text(&mut self, opcode: u8) -> Result<bool, PickleError> {
        let length = match opcode {
            0x8c | b'U' | b'C' => self.array::<1>()?[0].into(),
            b'X' | b'T' | b'B' => self.length4()?,
            0x8d | 0x8e => self.length8()?,
            _ => return Ok(false),
        };
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        let text = self.arena.new_text(&text);
        self.stack.push(text);
        Ok(true)
    }

    /// Lists, tuples and maps. Whether the opcode was one.
    fn collection(&mut self, opcode: u8) -> Result<bool, PickleError> {
        match opcode {
            b']' | b')' => self.push_list(Vec::new()),
            b'l' | b't' => {
                let items = self.pop_mark()?;
                self.push_list(items);
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or(self.malformed())?;
                let items = self.stack.split_off(from);
                self.push_list(items);
            }
            b'a' | b'e' => {
                let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                let (list, malformed) = (self.top()?, self.malformed());
                self.arena.list_mut(list).ok_or(malformed)?.extend(items);
            }
            b'}' => self.push_map(Vec::new()),
            b'd' => {
                let pairs = self.pairs()?;
                self.push_map(pairs);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_map(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = self.pairs()?;
                self.extend_map(pairs)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Marks, the memo and framing. Whether the opcode was one.
    fn bookkeeping(&mut self, opcode: u8) -> Result<bool, PickleError> {
        match opcode {
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    b'q' => self.array::<1>()?[0].into(),
                    b'r' => u32::from_le_bytes(self.array()?),
                    _ => u32::try_from(self.memo.len()).unwrap_or(u32::MAX),
                };
                let top = self.top()?;
                self.memo.insert(key, top);
            }
            b'h' | b'j' => {
                let key = match opcode {
                    b'h' => self.array::<1>()?[0].into(),
                    _ => u32::from_le_bytes(self.array()?),
                };
                let item = *self.memo.get(&key).ok_or(self.malformed())?;
                self.stack.push(item);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn push_list(&mut self, items: Vec<Item>) {
        let list = self.arena.new_list(items);
        self.stack.push(list);
    }

    fn push_map(&mut self, pairs: Vec<(Item, Item)>) {
        let map = self.arena.new_map(pairs);
        self.stack.push(map);
    }

    fn extend_map(&mut self, pairs: Vec<(Item, Item)>) -> Result<(), PickleError> {
        let (map, malformed) = (self.top()?, self.malformed());
        self.arena.map_mut(map).ok_or(malformed)?.extend(pairs);
        Ok(())
    }

    /// Keys and values, in turn, above the last mark.
    fn pairs(&mut self) -> Result<Vec<(Item, Item)>, PickleError> {
        let items = self.pop_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
        } else {
            Err(self.malformed())
        }
    }

    /// What stands above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Item>, PickleError> {
        let from = self.marks.pop().ok_or(self.malformed())?;
        if from > self.stack.len() {
            return Err(self.malformed());
        }
        Ok(self.stack.split_off(from))
    }

    fn pop(&mut self) -> Result<Item, PickleError> {
        self.stack.pop().ok_or(self.malformed())
    }

    fn top(&self) -> Result<Item, PickleError> {
        self.stack.last().copied().ok_or(self.malformed())
    }

    fn length4(&mut self) -> Result<usize, PickleError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| PickleError::Truncated { at: self.bytes.len() })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as were asked for"))
    }

    fn take(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn malformed(&self) -> PickleError {
        PickleError::Malformed { at: self.opcode_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &PickleError) {
        assert_eq!(&read(bytes, &mut Arena::default()).unwrap_err(), expected);
    }

    #[test]
    fn plain_data_of_every_kind_is_read() {
        // pickle.dumps({"a": [1, -2, 300, 70000, None, True, 1 << 40], "b": ("x", 1.5)}, 2)
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00N\x88\
            \x8a\x06\x00\x00\x00\x00\x00\x01eX\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04G?\xf8\x00\x00\x00\x00\
            \x00\x00\x86q\x05u.";
        let mut arena = Arena::default();
        let root = read(bytes, &mut arena).unwrap();
        let list = arena.list(arena.get(root, "a"));
        let ints = [1, -2, 300, 70_000].map(Item::Int);
        assert_eq!(list[..4], ints);
        assert_eq!(list[4..], [Item::Nothing, Item::Bool(true), Item::Int(1 << 40)]);
        let pair = arena.list(arena.get(root, "b"));
        assert_eq!((arena.text(pair[0]), pair[1]), (Some("x"), Item::Float));
    }

    #[test]
    fn code_is_refused_by_the_name_of_its_opcode() {
        // What pickle.dumps makes of an object whose __reduce__ calls os.system.
        check_refused(
            b"\x80\x02cposix\nsystem\n.",
            &PickleError::Refused { at: 2, name: "GLOBAL" },
        );
        check_refused(b"\x80\x04\x93.", &PickleError::Refused { at: 2, name: "STACK_GLOBAL" });
        check_refused(b")R.", &PickleError::Refused { at: 1, name: "REDUCE" });
        check_refused(b"}b.", &PickleError::Refused { at: 1, name: "BUILD" });
    }

    #[test]
    fn malformed_pickles_are_errors_with_their_place() {
        check_refused(b"\x80\x02", &PickleError::Truncated { at: 2 });
        check_refused(b"X\xff\xff\xff\xffa", &PickleError::Truncated { at: 6 });
        check_refused(b".", &PickleError::Malformed { at: 0 });
        check_refused(b"K\x01K\x01a.", &PickleError::Malformed { at: 4 });
        check_refused(b"(K\x01d.", &PickleError::Malformed { at: 3 });
        check_refused(b"h\x00.", &PickleError::Malformed { at: 0 });
        check_refused(b"(0.", &PickleError::Malformed { at: 1 });
        check_refused(b"\xff", &PickleError::Unknown { at: 0, opcode: 0xff });
    }

    #[test]
    fn lists_in_lists_and_a_list_in_itself_are_read_without_recursion() {
        let deep = [b"]".repeat(1_000_000), b"a".repeat(999_999), b".".to_vec()].concat();
        assert!(read(&deep, &mut Arena::default()).is_ok());
        assert!(read(b"]q\x00h\x00a.", &mut Arena::default()).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &mut Arena::default());
        }
    }
}
