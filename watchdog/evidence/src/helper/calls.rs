//! System calls: a line of `/proc/PID/task/TID/syscall` in words.

use syscalls::Sysno;

use super::target::Target;

/// Calls whose first argument is a descriptor that they wait for.
const ON_DESCRIPTOR: [Sysno; 24] = [
    Sysno::read,
    Sysno::write,
    Sysno::readv,
    Sysno::writev,
    Sysno::pread64,
    Sysno::pwrite64,
    Sysno::recvfrom,
    Sysno::recvmsg,
    Sysno::recvmmsg,
    Sysno::sendto,
    Sysno::sendmsg,
    Sysno::sendmmsg,
    Sysno::accept,
    Sysno::accept4,
    Sysno::connect,
    Sysno::epoll_pwait,
    Sysno::fsync,
    Sysno::fdatasync,
    Sysno::flock,
    Sysno::fcntl,
    Sysno::ioctl,
    Sysno::getdents64,
    Sysno::splice,
    Sysno::sendfile,
];

/// `read(5 = pipe:[71], 0x7f.., 0x1)`; `None` of a thread that is in no system call.
pub(super) fn described(target: &Target, text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let number: usize = words.next()?.parse().ok()?; // else it is "running", or in no call: -1
    let call = Sysno::new(number);
    let arguments: Vec<&str> = words.take(6).collect();
    let name = call.map_or_else(|| format!("call {number}"), |call| call.name().to_owned());
    let waits_for = call.filter(|call| waits_on_descriptor(*call)).and_then(|_| {
        let descriptor = u64::from_str_radix(arguments.first()?.strip_prefix("0x")?, 16).ok()?;
        let link = format!("/proc/{}/fd/{descriptor}", target.tid);
        let file = std::fs::read_link(link).ok()?;
        Some(format!("{descriptor} = {}", file.display()))
    });
    let first = waits_for.or_else(|| arguments.first().map(|&argument| argument.to_owned()));
    let rest = arguments.into_iter().skip(1).map(str::to_owned);
    let arguments: Vec<String> = first.into_iter().chain(rest).collect();
    Some(format!("{name}({})", arguments.join(", ")))
}

fn waits_on_descriptor(call: Sysno) -> bool {
    #[cfg(target_arch = "x86_64")]
    if call == Sysno::epoll_wait {
        return true; // aarch64 has `epoll_pwait` alone
    }
    ON_DESCRIPTOR.contains(&call)
}
