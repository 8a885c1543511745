//! A scope that a worker times: its name interned once, its deadlines for a few nanoseconds each.

use std::time::Duration;

use hangwatch_core::wire::lane::{AllowedBy, Subject, TimerKind};
use hangwatch_core::wire::scope::{ScopeId, ScopeName};
use hangwatch_core::wire::time::Nanos;

use crate::error::AcquireError;
use crate::guard::Guard;
use crate::lane::timeout_ns;
use crate::mapped::Mapped;
use crate::names;
use crate::thread;
use crate::worker::Worker;

impl Worker {
    /// Begins a scope that must end within `timeout`. For a hot path intern the name once, by
    /// [`Worker::scope`].
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn expires(&self, scope: &str, timeout: Duration) -> Result<Guard, AcquireError> {
        self.arm(scope, TimerKind::Guard, timeout)
    }

    /// Arms a timer by its scope's name, which is told also where the table has no room for it.
    pub(crate) fn arm(
        &self,
        name: &str,
        kind: TimerKind,
        timeout: Duration,
    ) -> Result<Guard, AcquireError> {
        let id = names::intern(&self.attachment.lanes, name)?;
        let scope = Scope::new(*self, id);
        if !names::is_without_room(id, name) {
            return scope.arm(kind, timeout, None);
        }
        let timeout_ns = timeout_ns(timeout)?;
        let (subject, name) = (scope.subject().of_kind(kind), ScopeName::new(name));
        let armed =
            thread::arm_spilled(&self.attachment.lanes, self.options, subject, &name, timeout_ns)?;
        Ok(Guard::new(self.options, armed))
    }

    /// Begins a scope that must end within its timeout by the watchdog's deadlines file
    /// (`hangwatch run --deadlines FILE`). For a hot path intern the name once, by [`Worker::scope`].
    ///
    /// # Errors
    /// [`AcquireError::NoDeadline`] where the watchdog has published none; otherwise as
    /// [`Worker::expires`].
    pub fn expires_default(&self, scope: &str) -> Result<Guard, AcquireError> {
        self.scope(scope)?.expires_default()
    }

    /// Interns a scope's name. A name beyond the segment's table has no statistics of its own, one too
    /// long is shortened from the left: a name never costs a deadline.
    ///
    /// # Errors
    /// [`AcquireError::EmptyScope`]; in a forked child, where the segment cannot be mapped anew.
    pub fn scope(&self, name: &str) -> Result<Scope, AcquireError> {
        Ok(Scope::new(*self, names::scope(&self.attachment.lanes, name)?))
    }
}

/// An interned scope of a worker: the hot path's handle.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    worker: Worker,
    subject: Subject,
}

impl Scope {
    pub(crate) fn new(worker: Worker, id: ScopeId) -> Scope {
        Scope { worker, subject: Subject::new(id, worker.signal, TimerKind::Guard) }
    }

    /// Begins the scope; it must end within `timeout`.
    ///
    /// # Errors
    /// [`AcquireError`].
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub fn expires(&self, timeout: Duration) -> Result<Guard, AcquireError> {
        self.arm(TimerKind::Guard, timeout, None)
    }

    /// Begins the scope as [`Scope::expires`] does, without a reading of the clock: `now` is a time that
    /// the caller has just read, by [`crate::now`]. For loops that read it anyway.
    ///
    /// The deadline is `now + timeout`: a `now` of long ago may have passed it already, and this very
    /// process is reaped for it.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # let worker = hangwatch::Worker::attach_from_env()?;
    /// let (scope, mut now) = (worker.scope("event")?, hangwatch::now());
    /// for _event in 0..1000 {
    ///     let guard = scope.expires_at(now, Duration::from_secs(5))?;
    ///     // ... the event is handled ...
    ///     now = hangwatch::now(); // one reading for this end and the next beginning
    ///     guard.release_at(now);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AcquireError`].
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub fn expires_at(&self, now: Nanos, timeout: Duration) -> Result<Guard, AcquireError> {
        // No machine is up for so long; what comes after must not wrap.
        self.arm(TimerKind::Guard, timeout, Some(now.min(Nanos(1 << 60))))
    }

    /// Begins the scope; it must end within the timeout that the watchdog's deadlines file gives it
    /// at this moment: one load more than [`Scope::expires`].
    ///
    /// # Errors
    /// [`AcquireError::NoDeadline`] where it gives none; otherwise as [`Scope::expires`].
    #[inline]
    pub fn expires_default(&self) -> Result<Guard, AcquireError> {
        self.arm_default(TimerKind::Guard)
    }

    #[inline]
    pub(crate) fn arm_default(&self, kind: TimerKind) -> Result<Guard, AcquireError> {
        let worker = self.worker;
        let here = worker.attachment.lanes.here().map_err(|error| Box::new(error.into()))?;
        let timeout_ns = self.learned_ns(&here.mapped)?;
        let subject = self.subject.of_kind(kind).allowed_by(AllowedBy::Scope);
        let armed = thread::arm(here, worker.options, subject, timeout_ns, None)?;
        Ok(Guard::new(worker.options, armed))
    }

    /// What the deadlines file gives the scope at this moment.
    pub(crate) fn learned(&self) -> Result<Duration, AcquireError> {
        let here = self.worker.attachment.here().map_err(|error| Box::new(error.into()))?;
        self.learned_ns(here.mapped()).map(Duration::from_nanos)
    }

    #[inline]
    fn learned_ns(&self, here: &Mapped) -> Result<u64, AcquireError> {
        match here.words.timeout(self.id()).get_ns() {
            Some(timeout_ns) => Ok(timeout_ns),
            None => self.others_timeout_ns(here),
        }
    }

    /// What the deadlines file gives scopes that it does not name.
    #[cold]
    fn others_timeout_ns(&self, here: &Mapped) -> Result<u64, AcquireError> {
        here.words.others_timeout_ns().ok_or_else(|| {
            let name = here.words.names().name(self.id());
            let scope = name.map_or("(unknown)".into(), |name| name.as_str().into());
            AcquireError::NoDeadline { scope }
        })
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn arm(
        &self,
        kind: TimerKind,
        timeout: Duration,
        at: Option<Nanos>,
    ) -> Result<Guard, AcquireError> {
        let (worker, timeout_ns) = (self.worker, timeout_ns(timeout)?);
        let subject = self.subject.of_kind(kind);
        let armed = thread::arm(&worker.attachment.lanes, worker.options, subject, timeout_ns, at)?;
        Ok(Guard::new(worker.options, armed))
    }

    /// Whether the name has statistics of its own: not where the segment's table had no room for it. Then
    /// an acquire by name ([`Worker::expires`]) tells the name of any number of scopes.
    #[doc(hidden)]
    pub fn is_own(&self) -> bool {
        self.id().is_own()
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.subject.scope()
    }

    pub(crate) fn subject(&self) -> Subject {
        self.subject
    }
}
