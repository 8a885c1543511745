//! What the places show in which workers ran out of time: [`View`].

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::{Excluded, ProcessControl, Reaping};
use super::Overdue;
use crate::watchdog::cascade::{Finding, Member, Scene, Stands, SuspectLog, find};
use crate::watchdog::expiry::{ExpiredTimer, Expiry, Place};
use crate::watchdog::worker::WorkerId;
use crate::wire::time::Nanos;

/// How many places one tick looks at most: who ran out of time elsewhere is reaped as usual.
const PLACES_A_TICK: usize = 16;

/// What one place shows.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) place: Place,
    pub(super) scene: Scene,
    pub(super) finding: Finding,
    /// What is done about it: filled in once for all that wait there.
    pub(super) excluded: Option<Excluded>,
    /// Whether the suspect is reaped now.
    pub(super) first: First,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Its reap has begun.
    Begun,
    /// Not yet; asked again at this time.
    Later(Nanos),
}

impl View {
    pub(super) fn member(&self) -> Option<&Member> {
        match &self.finding {
            Finding::NotYet(member) | Finding::Suspect(member) => Some(member),
            _ => None,
        }
    }

    pub(super) fn suspect(&self) -> Option<WorkerId> {
        self.member()?.worker
    }
}

/// What is known beside the segment.
pub(super) struct Known<'k> {
    /// Who was suspected earlier.
    pub(super) log: &'k SuspectLog,
    /// Who is about to be reaped for timers of its own.
    pub(super) leaving: &'k BTreeSet<WorkerId>,
}

impl<H: ProcessControl> Reaping<'_, H> {
    pub(super) fn place_of(&self, timer: &ExpiredTimer) -> Place {
        Place { job: self.segment.lane(timer.lane).job_label(), scope: timer.detail.scope }
    }

    pub(super) fn views(
        &mut self,
        now: Nanos,
        table: &Expiry<'_>,
        known: &Known<'_>,
        mut places: Vec<Place>,
    ) -> Vec<View> {
        // Names beyond the table of names may share a scope: being in it says nothing.
        places.retain(|place| place.scope.is_own());
        places.sort_unstable_by_key(|place| (place.job, place.scope));
        places.dedup();
        places.truncate(PLACES_A_TICK);
        let members = table.members(now, &places);
        let both = places.into_iter().zip(members);
        let slack_ns = table.clock_slack_ns();
        both.map(|(place, members)| self.view(place, members, known, slack_ns)).collect()
    }

    fn view(
        &mut self,
        place: Place,
        mut members: Vec<Member>,
        known: &Known<'_>,
        slack_ns: u64,
    ) -> View {
        let before = known.log.last(place.scope, &place.job);
        members.retain_mut(|member| {
            let Some(worker) = member.worker else { return true };
            let is_reaped = self.machines.contains_key(&worker);
            match member.stands {
                Stands::Inside { .. } => !is_reaped,
                _ if self.control.is_excluded(worker) => false,
                _ => {
                    if is_reaped || known.leaving.contains(&worker) {
                        member.stands = Stands::Leaving;
                    }
                    true
                }
            }
        });
        loop {
            let (scene, finding) = find(place.scope, &members, before, slack_ns);
            let view =
                View { place, scene, finding, excluded: None, first: First::Later(Nanos::NEVER) };
            // That one is dead may not have been told yet. Before anybody is reaped, all are asked.
            let asked = |member: &Member| match finding {
                Finding::Suspect(_) => true,
                Finding::NotYet(outsider) => *member == outsider,
                _ => false,
            };
            let mut is_dead = |member: &Member| {
                asked(member) && member.worker.is_some_and(|worker| self.control.is_dead(worker))
            };
            let count = members.len();
            members.retain(|member| !is_dead(member));
            if members.len() == count {
                return view;
            }
        }
    }

    /// Where all of a job are in the scope in which one of them ran out of time, they may wait in
    /// another one inside it. That is no reason to reap anybody, but one to hold those back that do.
    pub(super) fn inner_views(
        &mut self,
        now: Nanos,
        table: &Expiry<'_>,
        known: &Known<'_>,
        (overdue, views): (&[Overdue], &[View]),
    ) -> Vec<(WorkerId, View)> {
        let mut inner = Vec::new();
        for overdue in overdue {
            let outer = overdue.timers.iter().filter(|timer| {
                let place = self.place_of(timer);
                let mut all = views.iter();
                all.any(|view| view.place == place && view.finding == Finding::NobodyOutside)
            });
            let Some(since) = outer.map(|timer| timer.detail.acquired_at).min() else { continue };
            if inner.len() >= PLACES_A_TICK {
                break;
            }
            let mut timers = table.armed_by(overdue.worker);
            // Another thread of the worker may have another clock.
            let slack_ns = table.clock_slack_ns();
            timers.retain(|timer| {
                timer.detail.acquired_at.plus(slack_ns) >= since && timer.deadline > now
            });
            let places = timers.iter().map(|timer| self.place_of(timer)).collect();
            let seen = self.views(now, table, known, places);
            inner.extend(seen.into_iter().map(|view| (overdue.worker, view)));
        }
        inner
    }
}

/// Two places of one job that name two suspects name none.
pub(super) fn agree(views: &mut [View]) {
    for one in 0..views.len() {
        let (job, suspect) = (views[one].place.job, views[one].suspect());
        let is_other = |other: &View| {
            other.place.job == job && other.suspect().is_some() && other.suspect() != suspect
        };
        if suspect.is_some() && views.iter().any(is_other) {
            views.iter_mut().filter(|view| view.place.job == job).for_each(|view| {
                if view.suspect().is_some() {
                    view.finding = Finding::SeveralOutside;
                }
            });
        }
    }
}
