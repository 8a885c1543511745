use std::fs::File;

use rustix::process::{Signal, geteuid};

use super::*;
use hangwatch::sys::lock::try_lock;
use hangwatch_test_children::{
    Child, Mark, become_user, clone_sharing_files, clone_with_pid, fork, fork_headless,
    fork_holding, ofd_lock, pause_for_ever, shm_file, unshare_pids, wait_until_dead,
};

const BYTE: u64 = 7;

fn ask(file: &File) -> Attestation {
    attest(file, FileId::of(file).unwrap(), BYTE, None).unwrap()
}

#[track_caller]
fn check_attested(file: &File, pid: Pid) -> Process {
    match ask(file) {
        Attestation::Attested(process) => {
            assert_eq!(process.pid, pid);
            process
        }
        other => panic!("{other:?} instead of {pid:?} attested"),
    }
}

/// A claim about another process, made as the kernel would have it.
fn claim_of(child: &Child) -> Claim {
    let pidfd = Pidfd::open(child.pid()).unwrap();
    Claim {
        pid: child.pid().as_raw_pid().unsigned_abs(),
        start_ticks: start_time(child.pid()).unwrap().unwrap(),
        pidfd_inode: pidfd.inode().unwrap_or(0),
        pid_namespace: pid_namespace().unwrap(),
    }
}

#[test]
fn the_living_holder_is_attested_until_it_dies() {
    let file = shm_file(4096);
    assert!(matches!(ask(&file), Attestation::Unlocked));
    let child = fork_holding(&file, &[BYTE]);
    let process = check_attested(&file, child.pid());
    assert_eq!(check_attested(&file, child.pid()).identity, process.identity);
    process.pidfd.signal(Signal::KILL).unwrap();
    wait_until_dead(&process.pidfd);
    // Dead and not yet reaped: the lock has fallen with its file table.
    assert!(matches!(ask(&file), Attestation::Unlocked | Attestation::Gone));
    child.kill();
    assert!(matches!(ask(&file), Attestation::Unlocked));
}

#[test]
fn a_holder_whose_first_thread_has_ended_is_attested() {
    let file = shm_file(4096);
    let child = fork_headless(|| assert!(try_lock(&file, BYTE).unwrap()));
    check_attested(&file, child.pid());
}

#[test]
fn ones_own_lock_is_attested_to_oneself() {
    let file = shm_file(4096);
    assert!(try_lock(&file, BYTE).unwrap());
    let process = check_attested(&file, getpid());
    assert!(!process.pidfd.is_dead());
    let parent = getpid();
    let child = fork(|| {
        // A child does not inherit the lock; it attests its parent.
        check_attested(&file, parent);
        0
    });
    assert_eq!(child.exit_status(), 0);
}

#[test]
fn identities_differ_between_processes() {
    let file = shm_file(4096);
    let own = Process::open(getpid()).unwrap().unwrap();
    let child = fork_holding(&file, &[BYTE]);
    let other = check_attested(&file, child.pid());
    assert_ne!(own.identity, other.identity);
    let pid = child.pid();
    child.kill();
    assert!(Process::open(pid).unwrap().is_none());
}

#[test]
fn the_newcomer_under_a_dead_holders_pid_is_not_attested() {
    let file = shm_file(4096);
    let (ready, end) = (Mark::new(), Mark::new());
    // The holder leaves a sibling behind that shares its file table, and with
    // it the lock.
    let holder_child = fork(|| {
        assert!(try_lock(&file, BYTE).unwrap());
        ready.send(clone_sharing_files().as_raw_pid());
        end.wait();
        0
    });
    let sibling = Child::adopt(Pid::from_raw(ready.wait()).unwrap());
    let pid = holder_child.pid();
    check_attested(&file, pid);
    let claim = claim_of(&holder_child);
    assert_eq!(claimed_process(&claim), Claimed::Alive);

    end.send(0);
    assert_eq!(holder_child.exit_status(), 0);
    // The initial PID namespace still tells the pid, others tell 0.
    assert!(matches!(ask(&file), Attestation::Gone | Attestation::Unseen), "{:?}", ask(&file));
    assert_eq!(claimed_process(&claim), Claimed::Dead);

    let newcomer = match clone_with_pid(pid) {
        Ok(newcomer) => newcomer,
        Err(error) => {
            println!("skipped: cannot choose the pid of a child here: {error}");
            return;
        }
    };
    assert_eq!(holder(&file, BYTE).unwrap(), Holder::Process(newcomer.pid()), "the trap is set");
    assert!(matches!(ask(&file), Attestation::Mismatch { pid: named } if named == pid));
    assert_eq!(claimed_process(&claim), Claimed::Dead);

    sibling.kill();
    assert!(matches!(ask(&file), Attestation::Unlocked));
}

#[test]
fn a_holder_in_a_pid_namespace_below_is_attested_and_one_above_is_unseen() {
    let file = shm_file(4096);
    let other_byte = BYTE + 1;
    assert!(try_lock(&file, other_byte).unwrap());
    let (pid, above) = (Mark::new(), Mark::new());
    let child = fork(|| {
        if let Err(reason) = unshare_pids() {
            eprintln!("skipped: no PID namespace to be had: {reason}");
            pid.send(0);
            return 0;
        }
        let below = fork(|| {
            assert!(try_lock(&file, BYTE).unwrap());
            let outer = attest(&file, FileId::of(&file).unwrap(), other_byte, None).unwrap();
            above.send(i32::from(matches!(outer, Attestation::Unseen)));
            pause_for_ever()
        });
        pid.send(below.pid().as_raw_pid());
        below.exit_status()
    });
    let Some(pid) = Pid::from_raw(pid.wait()) else { return };
    assert_eq!(above.wait(), 1, "the holder above is unseen");
    let process = check_attested(&file, pid);
    process.pidfd.signal(Signal::KILL).unwrap();
    wait_until_dead(&process.pidfd);
    drop(child);
}

#[test]
fn a_lock_of_a_description_is_nobodys_to_signal() {
    let file = shm_file(4096);
    ofd_lock(&file, BYTE.cast_signed());
    assert!(matches!(ask(&file), Attestation::Unseen));
}

#[test]
fn a_holder_that_may_not_be_looked_into_is_denied() {
    if !geteuid().is_root() {
        println!("skipped: needs root to become another user");
        return;
    }
    let file = shm_file(4096);
    let child = fork_holding(&file, &[BYTE]);
    let asker = fork(|| {
        become_user(4002);
        i32::from(!matches!(ask(&file), Attestation::Denied { pid } if pid == child.pid()))
    });
    assert_eq!(asker.exit_status(), 0);
}

#[test]
fn a_claim_is_judged_by_all_it_says() {
    let own = Claim::own();
    let other_inode = if own.pidfd_inode == 0 { 0 } else { own.pidfd_inode + 1 };
    let without_inode = Claim { pidfd_inode: 0, ..own };
    for (claim, expected) in [
        (own, Claimed::Alive),
        (without_inode, Claimed::Alive),
        (Claim { start_ticks: own.start_ticks + 1, ..without_inode }, Claimed::Dead),
        (Claim { start_ticks: 0, ..without_inode }, Claimed::Unknown),
        (Claim { pid_namespace: own.pid_namespace + 1, ..own }, Claimed::Unknown),
        (Claim { pid_namespace: 0, ..own }, Claimed::Unknown),
        (Claim { pid: 0, ..own }, Claimed::Unknown),
        (Claim { pid: u32::MAX, ..own }, Claimed::Unknown),
        (Claim { pid: i32::MAX.unsigned_abs(), ..own }, Claimed::Dead),
    ] {
        assert_eq!(claimed_process(&claim), expected, "{claim:?}");
    }
    if other_inode != 0 {
        let claim = Claim { pidfd_inode: other_inode, ..own };
        assert_eq!(claimed_process(&claim), Claimed::Dead);
    }
}

#[test]
fn the_dead_are_told_before_and_after_they_are_reaped() {
    let child = fork(|| pause_for_ever());
    let claim = claim_of(&child);
    assert_eq!(claimed_process(&claim), Claimed::Alive);
    let pidfd = Pidfd::open(child.pid()).unwrap();
    pidfd.signal(Signal::KILL).unwrap();
    wait_until_dead(&pidfd);
    assert_eq!(claimed_process(&claim), Claimed::Dead);
    child.kill();
    assert_eq!(claimed_process(&claim), Claimed::Dead);
}
