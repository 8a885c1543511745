//! The worker: a process's handle on a segment.

use std::fmt;

use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::lane::TimerSignal;

use crate::attachment::Attachment;
use crate::error::{AcquireError, AttachError, SignalError};
use crate::labels::Labels;
use crate::lane::LaneOptions;
use crate::ptracer::Ptracer;
use crate::segment::Segment;
use crate::sys::lock::Holder;
use crate::thread;

/// What is sent to a worker whose deadline passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// What the watchdog was told by `--signal`, SIGKILL if nothing.
    #[default]
    Default,
    /// This signal; SIGKILL follows after the watchdog's grace. See [`Signal::number`].
    Number(SignalNumber),
    /// None: the expiry is reported, nobody is signalled.
    NotifyOnly,
}

/// The number of a signal, 1 to 64: those up to 31 by signal(7), the real-time signals above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNumber(u8);

impl SignalNumber {
    /// The signal with this number.
    ///
    /// # Errors
    /// [`SignalError`] where it is not 1 to 64.
    pub const fn new(number: u8) -> Result<SignalNumber, SignalError> {
        match number {
            1..=64 => Ok(SignalNumber(number)),
            _ => Err(SignalError { number }),
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Signal {
    /// The signal with this number.
    ///
    /// ```
    /// use hangwatch::Signal;
    ///
    /// assert!(matches!(Signal::number(15)?, Signal::Number(term) if term.get() == 15));
    /// assert!(Signal::number(65).is_err());
    /// # Ok::<(), hangwatch::SignalError>(())
    /// ```
    ///
    /// # Errors
    /// [`SignalError`] where it is not 1 to 64.
    pub const fn number(number: u8) -> Result<Signal, SignalError> {
        match SignalNumber::new(number) {
            Ok(number) => Ok(Signal::Number(number)),
            Err(error) => Err(error),
        }
    }
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

    /// Attaches the calling thread to the segment `name`. Other threads get lanes of their own when they
    /// first need one.
    ///
    /// Clock, labels and ptracer are settled when a thread first uses a segment. Where they are given
    /// after that, they must be the same.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Settled`] where the thread has attached with other options.
    pub fn attach(self, name: &str) -> Result<Worker, AttachError> {
        self.attach_to(Segment::open(name)?)
    }

    /// As [`WorkerOptions::attach`], to the segment that [`SEGMENT_VARIABLE`](crate::SEGMENT_VARIABLE)
    /// names: `hangwatch run -- COMMAND` sets it for the command.
    ///
    /// # Errors
    /// [`AttachError`]; [`OpenError::Unnamed`](crate::OpenError::Unnamed) where the variable is not set.
    pub fn attach_from_env(self) -> Result<Worker, AttachError> {
        let name = Segment::name_or_environment(None)?;
        self.attach(&name)
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
        let attachment = segment.attachment().here()?;
        let options = attachment.lanes.keep(LaneOptions {
            clock: self.clock.unwrap_or(ClockKind::Counter),
            labels: self.labels.clone().unwrap_or_else(Labels::from_environment),
            ptracer: self.ptracer.unwrap_or_else(Ptracer::from_environment),
        });
        let settled = thread::attach(&attachment.lanes, options).map_err(|error| match error {
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
        Ok(Worker { attachment, options, signal: self.signal.into() })
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
            Signal::Number(number) => TimerSignal::Signal(number.get()),
            Signal::Default => TimerSignal::Default,
            Signal::NotifyOnly => TimerSignal::NotifyOnly,
        }
    }
}

/// A process attached to a segment. Cheap to copy; any thread may use it.
///
/// ```
/// # let name = format!("doc-worker-{}", std::process::id());
/// # hangwatch::Segment::create(&name, hangwatch::CreateOptions::default())?;
/// use std::time::Duration;
///
/// let worker = hangwatch::Worker::attach(&name)?; // a watchdog serves `name`
/// let guard = worker.expires("load", Duration::from_secs(30))?;
/// assert_eq!(guard.release(), hangwatch::Released::InTime);
/// # hangwatch::Segment::remove(&name)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Worker {
    pub(crate) attachment: &'static Attachment,
    pub(crate) options: &'static LaneOptions,
    pub(crate) signal: TimerSignal,
}

impl Worker {
    /// Attaches to the segment `name` with the default [`WorkerOptions`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(name: &str) -> Result<Worker, AttachError> {
        WorkerOptions::new().attach(name)
    }

    /// Attaches to the segment that [`SEGMENT_VARIABLE`](crate::SEGMENT_VARIABLE) names, with the default
    /// [`WorkerOptions`].
    ///
    /// # Errors
    /// As [`WorkerOptions::attach_from_env`].
    pub fn attach_from_env() -> Result<Worker, AttachError> {
        WorkerOptions::new().attach_from_env()
    }

    /// Gives back the calling thread's lanes of this segment before the thread ends; a later deadline takes
    /// one anew. Lanes with armed timers stay enforced, and the next thread of this process goes on with
    /// them. For pools whose threads live long and set deadlines seldom.
    ///
    /// # Errors
    /// [`AcquireError::Reentered`] in a signal handler that has interrupted this library.
    pub fn leave_thread(&self) -> Result<(), AcquireError> {
        thread::leave(self.attachment.mapped().key())
    }

    /// The same worker with another signal for the timers acquired through it.
    #[must_use]
    pub fn with_signal(self, signal: Signal) -> Worker {
        Worker { signal: signal.into(), ..self }
    }

    /// The segment it is attached to.
    ///
    /// # Errors
    /// In a forked child, where it cannot be mapped anew.
    pub fn segment(&self) -> Result<Segment, AttachError> {
        Ok(Segment::of(self.attachment.here()?))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.attachment).finish()
    }
}
