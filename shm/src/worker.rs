//! The worker: a process's handle on a segment.

use std::fmt;
use std::time::Duration;

use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::lane::{TimerKind, TimerSignal};
use hangwatch_core::wire::scope::{OTHER, OTHER_NAME, ScopeId, ScopeName};
use hangwatch_core::wire::timer::Released;

use crate::error::{AcquireError, AttachError};
use crate::guard::Guard;
use crate::heartbeat::Heartbeat;
use crate::keyed;
use crate::labels::Labels;
use crate::lane::{LaneOptions, allowance_ns};
use crate::pause::Pause;
use crate::ptracer::Ptracer;
use crate::registry::{Shared, lock};
use crate::scope::Scope;
use crate::segment::Segment;
use crate::sys::lock::Holder;
use crate::thread;

/// What is sent to a worker whose deadline passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// What the watchdog was told by `--signal`, SIGKILL if nothing.
    #[default]
    Default,
    /// This signal, 1 to 64; SIGKILL follows after the watchdog's grace. What is no signal's number
    /// counts as [`Signal::Default`].
    Number(u8),
    /// None: the expiry is reported, nobody is signalled.
    NotifyOnly,
}

/// How a worker attaches.
///
/// ```no_run
/// let worker = hangwatch::WorkerOptions::new()
///     .clock(hangwatch::ClockKind::Coarse)
///     .require_watchdog()
///     .attach("train")?;
/// # Ok::<(), hangwatch::AttachError>(())
/// ```
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// These three belong to a thread's lane: `None` where the caller did not say.
    clock: Option<ClockKind>,
    labels: Option<Labels>,
    ptracer: Option<Ptracer>,
    signal: Signal,
    watchdog: WatchdogNeed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchdogNeed {
    Optional,
    Required,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkerOptions {
    /// The counter clock where the kernel trusts it (else the system clock), the watchdog's signal,
    /// labels from the environment, no need of a watchdog; whom the environment allows may trace it.
    pub fn new() -> Self {
        WorkerOptions {
            clock: None,
            labels: None,
            ptracer: None,
            signal: Signal::Default,
            watchdog: WatchdogNeed::Optional,
        }
    }

    /// Which clock times the scopes. The counter falls back to the system clock where the kernel's
    /// own clock source is another.
    #[must_use]
    pub fn clock(mut self, clock: ClockKind) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The signal of this worker's timers.
    #[must_use]
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = signal;
        self
    }

    /// The worker's place in its job.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = Some(labels);
        self
    }

    /// Attach only where a watchdog serves the segment. Otherwise an attach works without one, and
    /// deadlines hold from when one comes.
    #[must_use]
    pub fn require_watchdog(mut self) -> Self {
        self.watchdog = WatchdogNeed::Required;
        self
    }

    /// Whom to allow to trace this process for its stacks, where the kernel's Yama forbids it.
    #[must_use]
    pub fn ptracer(mut self, ptracer: Ptracer) -> Self {
        self.ptracer = Some(ptracer);
        self
    }

    /// Attaches the calling thread to the segment `name`, or to `$HANGWATCH_SEGMENT`'s where it is
    /// `None`. Other threads get lanes of their own when they first need one.
    ///
    /// Clock, labels and ptracer are settled when a thread first uses a segment. Where they are given
    /// after that, they must be the same.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Settled`] where the thread has attached with other options.
    pub fn attach<'n>(self, name: impl Into<Option<&'n str>>) -> Result<Worker, AttachError> {
        let name = Segment::name_or_environment(name.into())?;
        let segment = Segment::open(&name)?;
        self.attach_to(segment)
    }

    /// As [`WorkerOptions::attach`], to a segment this process has open already.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach_to(self, segment: Segment) -> Result<Worker, AttachError> {
        let name = segment.name();
        if self.watchdog == WatchdogNeed::Required {
            let holder = segment
                .watchdog()
                .map_err(|source| AttachError::Lock { name: name.to_owned(), source })?;
            if holder == Holder::Free && !segment.serves_itself() {
                return Err(AttachError::NoWatchdog { name: name.to_owned() });
            }
        }
        let shared = segment.shared().here()?;
        let options = shared.keep(LaneOptions {
            clock: self.clock.unwrap_or(ClockKind::Counter),
            labels: self.labels.clone().unwrap_or_else(Labels::from_environment),
            ptracer: self.ptracer.unwrap_or_else(Ptracer::from_environment),
        });
        let settled = thread::attach(shared, options).map_err(|error| match error {
            AcquireError::Attach(error) | AcquireError::NoFreeTimer { source: error, .. } => *error,
            other => unreachable!("an attach arms nothing, yet: {other}"),
        })?;
        let options = match self.differences(settled) {
            differ if differ.is_empty() => settled,
            differ => {
                let options = differ.join(", ");
                return Err(AttachError::Settled { name: name.to_owned(), options });
            }
        };
        Ok(Worker { shared, options, signal: self.signal.into() })
    }

    /// The options that were asked for and are not those that the thread's lane has.
    fn differences(&self, settled: &LaneOptions) -> Vec<&'static str> {
        let mut differ = Vec::new();
        if self.clock.is_some_and(|clock| clock != settled.clock) {
            differ.push("clock");
        }
        if let Some(labels) = &self.labels {
            differ.extend(labels.differences(&settled.labels));
        }
        if self.ptracer.is_some_and(|ptracer| ptracer != settled.ptracer) {
            differ.push("ptracer");
        }
        differ
    }
}

impl From<Signal> for TimerSignal {
    fn from(signal: Signal) -> TimerSignal {
        match signal {
            Signal::Number(number @ 1..=64) => TimerSignal::Signal(number),
            Signal::Default | Signal::Number(_) => TimerSignal::Default,
            Signal::NotifyOnly => TimerSignal::NotifyOnly,
        }
    }
}

/// A process attached to a segment. Cheap to copy; any thread may use it.
#[derive(Clone, Copy)]
pub struct Worker {
    pub(crate) shared: &'static Shared,
    pub(crate) options: &'static LaneOptions,
    pub(crate) signal: TimerSignal,
}

impl Worker {
    /// Attaches to the segment `name`, or to `$HANGWATCH_SEGMENT`'s where it is `None`, with the
    /// default [`WorkerOptions`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach<'n>(name: impl Into<Option<&'n str>>) -> Result<Worker, AttachError> {
        WorkerOptions::new().attach(name)
    }

    /// The same worker with another signal for the timers acquired through it.
    #[must_use]
    pub fn with_signal(self, signal: Signal) -> Worker {
        Worker { signal: signal.into(), ..self }
    }

    /// Begins a scope that must end within `allowance`. For a hot path intern the name once, by
    /// [`Worker::scope`].
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn expires(&self, scope: &str, allowance: Duration) -> Result<Guard, AcquireError> {
        self.arm(scope, TimerKind::Guard, allowance)
    }

    /// Arms a timer by its scope's name, which is told also where the table has no room for it.
    pub(crate) fn arm(
        &self,
        name: &str,
        kind: TimerKind,
        allowance: Duration,
    ) -> Result<Guard, AcquireError> {
        let id = self.intern(name)?;
        let scope = Scope::new(*self, id);
        if !is_without_room(id, name) {
            return scope.arm(kind, allowance, None);
        }
        let allowance_ns = allowance_ns(allowance)?;
        let (subject, name) = (scope.subject().of_kind(kind), ScopeName::new(name));
        let armed = thread::arm_spilled(self.shared(), self.options, subject, &name, allowance_ns)?;
        Ok(Guard::new(self.options, armed))
    }

    /// Begins a scope that must end within its allowance by the watchdog's deadlines file
    /// (`hangwatch run --deadlines FILE`). For a hot path intern the name once, by [`Worker::scope`].
    ///
    /// # Errors
    /// [`AcquireError::NoDeadline`] where the watchdog has published none; otherwise as
    /// [`Worker::expires`].
    pub fn expires_as_learned(&self, scope: &str) -> Result<Guard, AcquireError> {
        self.scope(scope)?.expires_as_learned()
    }

    /// Interns a scope's name. A name beyond the segment's table has no statistics of its own, one too
    /// long is shortened from the left: a name never costs a deadline.
    ///
    /// # Errors
    /// [`AcquireError::EmptyScope`]; in a forked child, where the segment cannot be mapped anew.
    pub fn scope(&self, name: &str) -> Result<Scope, AcquireError> {
        let mut id = self.intern(name)?;
        if is_without_room(id, name) {
            let here = self.shared().here().map_err(|error| Box::new(error.into()))?;
            id = lock(&here.spilled).keep(&ScopeName::new(name));
        }
        Ok(Scope::new(*self, id))
    }

    /// The scope of `name`; `(other)` where the table has no room for it.
    fn intern(&self, name: &str) -> Result<ScopeId, AcquireError> {
        if name.is_empty() {
            return Err(AcquireError::EmptyScope);
        }
        let here = self.shared().here().map_err(|error| Box::new(error.into()))?;
        let id = thread::known_scope(here.key(), name).unwrap_or_else(|| {
            let interned = here.words.names().intern(name);
            if interned.overflowed {
                here.words.scopes_overflowed().fetch_add(1, Ordering::Relaxed);
            }
            thread::know_scope(here.key(), name, interned.scope);
            interned.scope
        });
        Ok(id)
    }

    /// Sets the deadline of the scope `name` of this process: upstream's keyed rule, by which the
    /// same scope acquired again replaces its deadline.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn acquire(&self, name: &str, allowance: Duration) -> Result<(), AcquireError> {
        keyed::acquire(*self, name, allowance)
    }

    /// Ends what [`Worker::acquire`] began, from any thread; says whether it was in time, too late or
    /// there was nothing.
    ///
    /// # Errors
    /// In a forked child, where the segment cannot be mapped anew.
    pub fn release(&self, name: &str) -> Result<Released, AcquireError> {
        keyed::release(*self, name)
    }

    /// Begins a heartbeat: a deadline that each kick moves on.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn heartbeat(&self, name: &str, allowance: Duration) -> Result<Heartbeat, AcquireError> {
        let guard = self.arm(name, TimerKind::Heartbeat, allowance)?;
        Ok(Heartbeat::new(guard, allowance))
    }

    /// Begins a heartbeat whose rounds have their allowance by the watchdog's deadlines file; see
    /// [`Scope::heartbeat_as_learned`].
    ///
    /// # Errors
    /// As [`Worker::expires_as_learned`].
    pub fn heartbeat_as_learned(&self, name: &str) -> Result<Heartbeat, AcquireError> {
        self.scope(name)?.heartbeat_as_learned()
    }

    /// Begins a stretch that the calling thread's armed timers do not count, `max` at most; it has
    /// that deadline itself, under `name`. See [`Pause`].
    ///
    /// # Errors
    /// [`AcquireError`]; then nothing is paused.
    pub fn pause(&self, name: &str, max: Duration) -> Result<Pause, AcquireError> {
        Pause::begin(*self, name, max)
    }

    /// The segment it is attached to.
    ///
    /// # Errors
    /// In a forked child, where it cannot be mapped anew.
    pub fn segment(&self) -> Result<Segment, AttachError> {
        Ok(Segment::of(self.shared().here()?))
    }

    pub(crate) fn shared(&self) -> &'static Shared {
        self.shared
    }

    pub(crate) fn lane_options(&self) -> &'static LaneOptions {
        self.options
    }
}

fn is_without_room(id: ScopeId, name: &str) -> bool {
    id == OTHER && name != OTHER_NAME
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.shared).finish()
    }
}
