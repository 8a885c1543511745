//! Suspects: who is reaped before those that wait for it, and who is held back meanwhile.
//!
//! Before the first worker of a tick is reaped, all that are overdue are weighed: each is looked at
//! from the scopes in which it ran out of time ([`find`]). What follows is a [`Course`] for each. One
//! that is held back is weighed again until it releases, or its deadline and the time of the cascade
//! have passed; its timer stays armed, so nothing is lost where this watchdog dies.

mod view;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Course, Event, Excluded, Held, Machine, ProcessControl, Reaping, Usual, Verdict};
use crate::atomic::add_single_writer;
use crate::crash;
use crate::watchdog::cascade::{Finding, Member, Scene, Suspected, Visit, has_been_in};
use crate::watchdog::expiry::{ExpiredTimer, Expiry};
use crate::watchdog::policy::{Cascade, SIGKILL};
use crate::watchdog::tick::Expired;
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::{NotedHold, TimerSignal};
use crate::wire::scope::ScopeId;
use crate::wire::segment::Counter;
use crate::wire::time::Nanos;
use crate::wire::timer::{TimerState, TimerWord};

use view::{First, Known, View, agree};

/// Why a worker is reaped before any timer of its has expired.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    /// A lane of its.
    pub(super) lane: u32,
    /// Where the others wait for it.
    pub(super) scope: ScopeId,
    /// Its own timer that was condemned for it.
    pub(super) timer: Option<ExpiredTimer>,
}

/// What is remembered between two ticks.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Who was weighed this tick and is held back, until when.
    back: BTreeMap<WorkerId, Nanos>,
    /// The timers, by lane and index, for which somebody was held back: it gets its time, whatever
    /// becomes of the others.
    promised: BTreeMap<(u32, u16), TimerWord>,
    /// What was told of a worker last.
    told: BTreeMap<WorkerId, (TimerWord, Course)>,
}

impl Suspects {
    /// When a worker that is held back is to be looked at again.
    pub(super) fn again_at(&self, worker: WorkerId) -> Option<Nanos> {
        self.back.get(&worker).copied()
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.back.remove(&worker);
        self.told.remove(&worker);
    }

    fn is_promised(&self, timer: &ExpiredTimer) -> bool {
        self.promised.get(&(timer.lane, timer.timer)) == Some(&timer.word)
    }
}

/// A worker that ran out of time, and would be reaped now.
struct Overdue {
    worker: WorkerId,
    /// The timers of it that ask for a signal, the earliest deadline first.
    timers: Vec<ExpiredTimer>,
}

type AllExpired = Vec<Expired<WorkerId, ExpiredTimer>>;

impl<H: ProcessControl> Reaping<'_, H> {
    pub(super) fn look_for_suspects(
        &mut self,
        now: Nanos,
        table: &Expiry<'_>,
        expired: &mut AllExpired,
    ) {
        self.suspects.back.clear();
        if self.cascade() == Cascade::Off {
            return;
        }
        self.suspects.promised.retain(|&(lane, timer), word| {
            let place = self.segment.lane(lane).timer(usize::from(timer));
            place.is_some_and(|place| place.load() == *word)
        });
        let overdue = self.overdue(expired);
        if overdue.is_empty() {
            return;
        }
        let leaving = overdue.iter().map(|overdue| overdue.worker).collect();
        let known = Known { log: &self.segment.suspects(now), leaving: &leaving };
        let places =
            overdue.iter().flat_map(|overdue| &overdue.timers).map(|timer| self.place_of(timer));
        let mut views = self.views(now, table, &known, places.collect());
        agree(&mut views);
        for view in &mut views {
            self.weigh_suspect(now, table, view, expired);
        }
        let inner = self.inner_views(now, table, &known, (&overdue, &views));
        for overdue in overdue {
            self.settle(now, &overdue, &views, &inner);
        }
    }

    /// Those that would be reaped now for the first time.
    fn overdue(&self, expired: &AllExpired) -> Vec<Overdue> {
        let is_condemned = |timer: &ExpiredTimer| timer.word.state() == Some(TimerState::Condemned);
        let new = expired.iter().filter(|expired| {
            !self.machines.contains_key(&expired.worker) && !expired.timers.iter().any(is_condemned)
        });
        new.map(|expired| {
            let mut timers = expired.timers.clone();
            timers.retain(asks_for_signal);
            Overdue { worker: expired.worker, timers }
        })
        .filter(|overdue| !overdue.timers.is_empty())
        .collect()
    }

    /// A watchdog that signals nobody only tells of suspects.
    fn cascade(&self) -> Cascade {
        match self.policy.cascade {
            Cascade::Hold { .. } if self.policy.signal == TimerSignal::NotifyOnly => {
                Cascade::Report
            }
            cascade => cascade,
        }
    }

    /// Whether the suspect of a place may be reaped; if so, and if it is time, its reap begins.
    fn weigh_suspect(
        &mut self,
        now: Nanos,
        table: &Expiry<'_>,
        view: &mut View,
        expired: &mut AllExpired,
    ) {
        let (Some(member), Some(worker)) = (view.member().copied(), view.suspect()) else { return };
        let armed = table.armed_by(worker);
        let timer =
            armed.iter().filter(|timer| asks_for_signal(timer)).min_by_key(|timer| timer.deadline);
        view.excluded = if !armed.is_empty() && timer.is_none() {
            Some(Excluded::ReportsOnly)
        } else {
            self.left_it(table, worker, &member, &view.scene)
        };
        let Cascade::Hold { hold_ns } = self.cascade() else { return };
        if view.excluded.is_some() || !matches!(view.finding, Finding::Suspect(_)) {
            return;
        }
        if self.machines.contains_key(&worker) {
            return view.first = First::Begun; // for another of the scopes it is awaited in
        }
        let timer = timer.copied();
        match self.may_reap_suspect(now, worker, member.lane, hold_ns) {
            Ok(()) => {}
            Err(Refusal::Excluded(excluded)) => return view.excluded = Some(excluded),
            Err(Refusal::Later(again_at)) => return view.first = First::Later(again_at),
        }
        let (scope, lane, owner) = (view.place.scope, member.lane, member.owner);
        let job = view.place.job.hash();
        self.segment.log_suspect(&Suspected { at: now, scope, job, lane, owner });
        let Ok(timer) = timer.map(|timer| self.condemn_early(timer)).transpose() else {
            return; // it released it just now: it goes on
        };
        let wanted = timer.map_or(TimerSignal::Default, |timer| timer.detail.signal);
        let signal = self.policy.signal_for(wanted).unwrap_or(SIGKILL);
        let suspicion = Suspicion { lane, scope, timer };
        let machine = Machine::new(now, signal, Vec::new(), Some(suspicion));
        self.machines.insert(worker, machine);
        expired.insert(0, Expired { worker, timers: timer.into_iter().collect() });
        view.first = First::Begun;
    }

    fn left_it(
        &self,
        table: &Expiry<'_>,
        worker: WorkerId,
        member: &Member,
        scene: &Scene,
    ) -> Option<Excluded> {
        // By another worker's clock: what may have been after that counts.
        let since = Nanos(scene.entered_at.0.saturating_sub(table.clock_slack_ns()));
        let is_at_work = table.has_given_back(member.owner.pid(), since);
        let visits = table
            .lanes_of(worker)
            .map(|lane| has_been_in(self.segment.lane(lane), scene.scope, since));
        visits.fold(is_at_work.then_some(Excluded::AtWork), |so_far, visit| match visit {
            Visit::Lately => Some(Excluded::HasLeft),
            Visit::Overwritten => so_far.or(Some(Excluded::AtWork)),
            Visit::None => so_far,
        })
    }

    fn may_reap_suspect(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        lane: u32,
        hold_ns: u64,
    ) -> Result<(), Refusal> {
        match self.control.verdict(now, worker, lane) {
            Verdict::Go => {}
            Verdict::Held(hold) => {
                self.hold(now, worker, hold, alloc::vec![lane]);
                return Err(Refusal::Excluded(Excluded::Held(hold)));
            }
            Verdict::Wait(until) => {
                self.look_for_hold(now, worker, until);
                return Err(Refusal::Later(until));
            }
        }
        // It could not run until lately: it gets as long as those who wait for it.
        if let Some(held) = self.held.get_mut(&worker) {
            let let_go_at = if let Held::Until(at) = *held { at } else { now };
            *held = Held::Until(let_go_at);
            self.segment.lane(lane).note_hold(NotedHold::LetGo(let_go_at));
            let until = let_go_at.plus(hold_ns);
            if now < until {
                return Err(Refusal::Later(until));
            }
        }
        if self.does_brake(now) { Err(Refusal::Excluded(Excluded::Limited)) } else { Ok(()) }
    }

    /// Claims a timer before its deadline.
    fn condemn_early(&mut self, timer: ExpiredTimer) -> Result<ExpiredTimer, ()> {
        let place = self.segment.lane(timer.lane).timer(usize::from(timer.timer));
        let Some(place) = place.filter(|place| place.condemn(timer.word)) else { return Err(()) };
        crash::point("condemn");
        add_single_writer(self.segment.counter(Counter::Condemned), 1);
        Ok(ExpiredTimer { word: place.load(), ..timer })
    }

    /// A timer that a watchdog before this one condemned before its deadline is a suspect's.
    pub(super) fn take_over_suspicion(
        &self,
        now: Nanos,
        timers: &mut Vec<ExpiredTimer>,
    ) -> Option<Suspicion> {
        let is_early = |timer: &ExpiredTimer| {
            timer.word.state() == Some(TimerState::Condemned) && timer.deadline > now
        };
        let early = timers.iter().position(is_early)?;
        let lane = timers[early].lane;
        let owner = self.segment.lane(lane).owner();
        let scope = self.segment.suspects(now).scope_of(lane, owner)?;
        Some(Suspicion { lane, scope, timer: Some(timers.remove(early)) })
    }

    /// Decides about one overdue worker, and tells of it.
    fn settle(
        &mut self,
        now: Nanos,
        overdue: &Overdue,
        views: &[View],
        inner: &[(WorkerId, View)],
    ) {
        let deadline = overdue.timers.iter().map(|timer| timer.deadline).min();
        let until = match (self.cascade(), deadline) {
            (Cascade::Hold { hold_ns }, Some(deadline)) => deadline.plus(hold_ns),
            _ => Nanos(0),
        };
        let inner = inner.iter().filter(|(worker, _)| *worker == overdue.worker);
        let inner = inner.filter(|(_, view)| {
            let is_one = matches!(view.finding, Finding::ReapedBefore | Finding::Leaving);
            is_one || view.suspect().is_some()
        });
        let outer = overdue.timers.iter().flat_map(|timer| {
            let place = self.place_of(timer);
            views.iter().filter(move |view| view.place == place).map(move |view| (timer, view))
        });
        let first = &overdue.timers[0];
        let choices = outer.chain(inner.map(|(_, view)| (first, view)));
        let best = choices
            .map(|(timer, view)| (timer, view, self.course(view, until)))
            .min_by_key(|(_, _, course)| rank(course));
        let Some((timer, view, mut course)) = best else { return };
        let (timer, view) = (*timer, *view);
        let is_refused = matches!(course, Course::Usual(Usual::Excluded(_)));
        let is_promised = overdue.timers.iter().any(|timer| self.suspects.is_promised(timer));
        if is_promised && !is_refused && matches!(course, Course::Usual(_)) {
            course = Course::HeldBack { until };
        }
        if now >= until && matches!(course, Course::HeldBack { .. } | Course::SuspectFirst { .. }) {
            course = Course::Usual(Usual::HeldLongEnough);
        }
        if let Course::HeldBack { .. } | Course::SuspectFirst { .. } = course {
            let mut again_at = until.min(now.plus(self.segment.fixed().max_interval_ns));
            if let First::Later(at) = view.first {
                again_at = again_at.min(at);
            }
            self.suspects.back.insert(overdue.worker, again_at.max(now));
            for timer in &overdue.timers {
                self.suspects.promised.insert((timer.lane, timer.timer), timer.word);
            }
        }
        self.tell_course(overdue.worker, &timer, &view, course);
    }

    fn course(&self, view: &View, until: Nanos) -> Course {
        let usual = match view.finding {
            Finding::Alone => Usual::Alone,
            Finding::NobodyOutside => Usual::NobodyOutside,
            Finding::SeveralOutside => Usual::SeveralOutside,
            Finding::Unproved => Usual::Unproved,
            _ => match (view.excluded, self.cascade(), view.first) {
                (Some(excluded), ..) => Usual::Excluded(excluded),
                (None, Cascade::Hold { .. }, First::Begun) => {
                    return Course::SuspectFirst { until };
                }
                (None, Cascade::Hold { .. }, _) => return Course::HeldBack { until },
                _ if view.suspect().is_some() => return Course::Told,
                _ => Usual::NobodyOutside,
            },
        };
        Course::Usual(usual)
    }

    fn tell_course(&mut self, worker: WorkerId, timer: &ExpiredTimer, view: &View, course: Course) {
        let told = (timer.word, course);
        let before = self.suspects.told.insert(worker, told);
        let was_first =
            matches!(before, Some((word, Course::SuspectFirst { .. })) if word == timer.word);
        // That the suspect comes first was told; that the worker is held back for it says no more.
        if before == Some(told) || (was_first && matches!(course, Course::HeldBack { .. })) {
            return;
        }
        let (scene, suspect) = (view.scene, view.member().copied());
        self.control.note(Event::Cascade { worker, timer, scene, suspect, course });
    }
}

/// Why a suspect is not reaped now.
enum Refusal {
    /// It is not reaped at all.
    Excluded(Excluded),
    /// It is asked about again at this time.
    Later(Nanos),
}

/// Which course counts where a worker ran out of time in several scopes: the least that is wanted.
fn rank(course: &Course) -> u8 {
    match course {
        Course::SuspectFirst { .. } => 0,
        Course::HeldBack { .. } => 1,
        Course::Told => 2,
        Course::Usual(Usual::Excluded(_)) => 3,
        Course::Usual(Usual::Alone) => 5,
        Course::Usual(_) => 4,
    }
}

/// Whether a timer asks for more than a report.
fn asks_for_signal(timer: &ExpiredTimer) -> bool {
    timer.detail.signal != TimerSignal::NotifyOnly
}
