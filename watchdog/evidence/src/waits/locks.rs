//! Locks on files: who holds what a process waits for, by `/proc/locks`.

use hangwatch::sys::proc_file;

/// What is read of the list, bytes.
const LIST_BYTES: u64 = 4 << 20;

/// A lock that a process waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `flock` or `fcntl`.
    pub(super) kind: &'static str,
    /// The file, as the list names it: `00:2f:1234`.
    pub(super) file: String,
    /// Who holds it; -1 of a lock of an open file description, whose holder the list does not name.
    pub(super) holder: i64,
}

/// The locks that a process waits for.
pub(super) fn wanted_by(pid: u32) -> Vec<Wanted> {
    let text = proc_file::bytes("/proc/locks", LIST_BYTES).unwrap_or_default();
    find(&String::from_utf8_lossy(&text), pid)
}

/// `1: FLOCK ADVISORY WRITE 70 00:2f:1234 0 EOF`; one that waits for it follows as `1: -> FLOCK ...`.
fn find(list: &str, pid: u32) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut holder = None;
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let number = words.next().unwrap_or_default();
        let mut words: Vec<&str> = words.collect();
        let waits = words.first() == Some(&"->");
        if waits {
            words.remove(0);
        }
        let [kind, _, _, owner, file, ..] = words[..] else { continue };
        let Ok(owner) = owner.parse::<i64>() else { continue };
        if !waits {
            holder = Some((number, owner));
        } else if owner == i64::from(pid)
            && let Some((_, holder)) = holder.filter(|(of, _)| *of == number)
        {
            let kind = if kind == "FLOCK" { "flock" } else { "fcntl lock" };
            wanted.push(Wanted { kind, file: file.to_owned(), holder });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_stands_before_those_that_wait() {
        let list = "1: POSIX  ADVISORY  WRITE 7 00:1f:9 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 8 00:1f:10 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 9 00:1f:10 0 EOF\n\
                    3: OFDLCK ADVISORY  WRITE -1 00:1f:11 0 EOF\n\
                    3: -> POSIX  ADVISORY  WRITE 10 00:1f:11 0 0\n\
                    malformed\n4: -> FLOCK x y 9 z\n";
        let wanted = find(list, 9);
        assert_eq!(wanted, [Wanted { kind: "flock", file: "00:1f:10".into(), holder: 8 }]);
        assert_eq!(find(list, 10)[0].holder, -1);
        assert_eq!(find(list, 8), []);
    }
}
