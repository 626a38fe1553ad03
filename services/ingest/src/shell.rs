//! The loop: whatever happens goes to the reconciler, and what it says is carried out in its order.
//!
//! Decides nothing. An assignment is on disk before the next effect is begun and before it is acknowledged or
//! reported; while the disk refuses it, everything that depends on it waits, and the cameras go on as before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use understudy_bus::{Incoming, Link};
use understudy_core::{
    assignment::{Assignment, Role},
    camera::Camera,
    contract::heartbeat::{CameraStatus, RightToAct, Room, SealedBundle, ServerReport},
    ids::{CameraId, DomainId, FailoverId, Incarnation, ServerId},
    reconcile::{Effect, Input, Persisted, Reconciler},
    settings::{Bundle, BundleHash},
};
use understudy_media::{film::Studio, relay::Relay};
use understudy_runtime::{
    Condition, ServerConfig, TraceContext, Tracer, clock,
    trace::{Kind, Open},
};

use crate::{
    IngestConfig, acting::Acting, director::Order, disk::Disk, inbox::Batch, keeper::Keeper,
    metrics::Metrics, report::Schedule,
};

/// How often time is told to the reconciler, and what the disk refused is tried again.
const TICK: Duration = Duration::from_secs(1);

/// What the shell acts with.
pub(crate) struct Tools {
    pub(crate) disk: Disk,
    /// To be asked how the cameras are; it gets its orders from the director.
    pub(crate) studio: Studio,
    /// To be asked where it listens, and how many watch.
    pub(crate) relay: Relay,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) keeper: Keeper,
    /// The settings to be fetched.
    pub(crate) wanted: watch::Sender<Option<BundleHash>>,
    pub(crate) reports: watch::Sender<Option<ServerReport>>,
    /// Cameras with their retention.
    pub(crate) limits: watch::Sender<Vec<Camera>>,
    /// The room on the recording volume, as it was measured last.
    pub(crate) room: watch::Receiver<Option<Room>>,
    pub(crate) metrics: Metrics,
    pub(crate) assigned: Condition,
    /// To be asked whether this server may act.
    pub(crate) acting: Acting,
    pub(crate) tracer: Tracer,
}

/// Where things come in from.
pub(crate) struct Doors {
    pub(crate) inbox: mpsc::Receiver<Batch>,
    pub(crate) fetches: mpsc::Receiver<(SealedBundle, Bundle)>,
    pub(crate) statuses: mpsc::Receiver<(CameraId, CameraStatus)>,
    /// Rings when an order was carried out.
    pub(crate) directed: Arc<Notify>,
    pub(crate) results: mpsc::Receiver<Input>,
    /// Where live view is given out.
    pub(crate) announced: watch::Receiver<Option<SocketAddr>>,
    pub(crate) link: watch::Receiver<Link>,
    /// Whether this server may act.
    pub(crate) right: watch::Receiver<RightToAct>,
}

/// Something to be done, in order; what follows waits for it.
enum Step {
    Effect(Effect),
    Hear(Assignment),
    Store(SealedBundle, Bundle),
    Acknowledge(Vec<Incoming>),
}

/// The shell around one server's reconciler.
pub(crate) struct Shell {
    tools: Tools,
    reconciler: Reconciler,
    /// Grows only while the disk refuses; what comes in then is bounded by the broker's prefetch.
    todo: VecDeque<Step>,
    schedule: Schedule,
    config: IngestConfig,
    server: ServerId,
    domain: DomainId,
    incarnation: Incarnation,
    sequence: u64,
    max_cameras: u32,
    cameras: BTreeMap<CameraId, Camera>,
    refused: String,
    /// The part of a trace that handles what came last, until it is acted on.
    cause: Option<Open>,
    /// The same of the newest assignment, for what can be done about it only later.
    assigned_by: Option<TraceContext>,
}

impl Shell {
    /// Begins what the assignment on disk says, before anything is heard.
    pub(crate) async fn start(
        tools: Tools,
        config: &IngestConfig,
        server: &ServerConfig,
        incarnation: Incarnation,
        (persisted, bundles, held): (Persisted, Vec<Bundle>, BTreeSet<FailoverId>),
    ) -> Self {
        let cameras = bundles.iter().flat_map(|bundle| bundle.cameras.clone());
        let cameras = cameras.map(|camera| (camera.id.clone(), camera)).collect();
        let (reconciler, effects) =
            Reconciler::start(server.id.clone(), persisted, bundles, held, clock::now());
        let mut shell = Self {
            tools,
            reconciler,
            todo: VecDeque::new(),
            schedule: Schedule::new(
                Duration::from_secs(config.report_interval_seconds),
                Instant::now(),
            ),
            config: config.clone(),
            server: server.id.clone(),
            domain: server.domain.clone(),
            incarnation,
            sequence: 0,
            max_cameras: server.max_cameras,
            cameras,
            refused: String::new(),
            cause: None,
            assigned_by: None,
        };
        shell
            .tools
            .limits
            .send_replace(shell.cameras.values().cloned().collect());
        shell.add(effects);
        shell.carry_out().await;
        shell
    }

    /// Runs until shutdown.
    pub(crate) async fn run(mut self, mut doors: Doors, process: &understudy_runtime::Process) {
        let shutdown = process.shutdown();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counted = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(batch) = doors.inbox.recv() => self.take(batch),
                Some((sealed, bundle)) = doors.fetches.recv() => self.todo.push_back(Step::Store(sealed, bundle)),
                Some(_) = doors.statuses.recv() => {
                    // One look at all of them is never out of order, and covers what else is waiting.
                    while doors.statuses.try_recv().is_ok() {}
                    self.look_at_cameras();
                }
                () = doors.directed.notified() => self.look_at_cameras(),
                Some(result) = doors.results.recv() => self.step(result),
                Ok(()) = doors.announced.changed() => self.schedule.changed(Instant::now()),
                Ok(()) = doors.link.changed() => {
                    // Whoever came with the broker, or lost its queue, has heard nothing of this server.
                    if *doors.link.borrow_and_update() == Link::Up {
                        self.schedule.changed(Instant::now());
                    }
                }
                Ok(()) = doors.right.changed() => self.schedule.changed(Instant::now()),
                () = self.schedule.due(), if self.todo.is_empty() => self.report(),
                _ = ticks.tick() => {
                    self.step(Input::Tick);
                    let now = Instant::now();
                    self.count(now - counted);
                    counted = now;
                }
            }
            match self.cause.take() {
                Some(cause) => {
                    cause.scope(self.carry_out()).await;
                    let server = self.server.to_string();
                    cause.end(|span| span.of(Kind::Consumer).with("server", server));
                }
                None => self.carry_out().await,
            }
        }
    }

    /// Settings first: an assignment that came with them finds them there.
    fn take(&mut self, batch: Batch) {
        let heard = !batch.assignments.is_empty();
        let name = if heard { "take assignment" } else { "take settings" };
        self.cause = batch.trace.map(|trace| self.tools.tracer.open(name, trace));
        if heard {
            self.assigned_by = self.cause.as_ref().map(|cause| cause.context);
        }
        for (sealed, bundle) in batch.bundles {
            self.todo.push_back(Step::Store(sealed, bundle));
        }
        for assignment in batch.assignments {
            self.todo.push_back(Step::Hear(assignment));
        }
        self.todo.push_back(Step::Acknowledge(batch.receipts));
    }

    fn look_at_cameras(&mut self) {
        for (camera, status) in self.tools.studio.now() {
            self.step(Input::Camera(camera, status));
        }
    }

    fn step(&mut self, input: Input) {
        let effects = self.reconciler.step(input, clock::now());
        self.add(effects);
    }

    /// Puts effects behind what waits already.
    fn add(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Report => self.schedule.changed(Instant::now()),
                effect => self.todo.push_back(Step::Effect(effect)),
            }
        }
    }

    /// Steps that follow from one of the steps come before those that waited behind it.
    fn add_first(&mut self, input: Input) {
        let behind = std::mem::take(&mut self.todo);
        self.step(input);
        self.todo.extend(behind);
    }

    /// Carries out what is to be done, until nothing is left or the disk refuses.
    async fn carry_out(&mut self) {
        while let Some(step) = self.todo.pop_front() {
            match self.carry_out_one(step).await {
                Ok(()) => self.refused.clear(),
                Err((step, error)) => {
                    self.todo.push_front(step);
                    self.refuse(&error);
                    return;
                }
            }
        }
        self.say_how_it_is();
    }

    async fn carry_out_one(&mut self, step: Step) -> Result<(), (Step, io::Error)> {
        match step {
            Step::Hear(assignment) => {
                tracing::info!(epoch = %assignment.epoch, role = describe(&assignment.role), "assignment heard");
                self.add_first(Input::Heard(assignment));
            }
            Step::Acknowledge(receipts) => {
                for receipt in receipts {
                    receipt.ack().await;
                }
            }
            Step::Store(sealed, bundle) => {
                let kept = sealed.clone();
                if let Err(error) = self.on_disk(move |disk| disk.store_bundle(&kept)).await {
                    return Err((Step::Store(sealed, bundle), error));
                }
                self.stored(bundle).await;
            }
            Step::Effect(Effect::Persist(assignment)) => {
                let kept = assignment.clone();
                let trace = self.assigned_by;
                let stored = self.on_disk(move |disk| {
                    disk.store_trace(&kept, trace.as_ref());
                    disk.store_assignment(&kept)
                });
                if let Err(error) = stored.await {
                    return Err((Step::Effect(Effect::Persist(assignment)), error));
                }
                self.tools.metrics.assigned();
            }
            Step::Effect(effect) => self.act(effect).await,
        }
        Ok(())
    }

    /// Carries out an effect that can't fail here: others see it through.
    async fn act(&mut self, effect: Effect) {
        let order = match effect {
            Effect::Film(film) => {
                tracing::info!(
                    identity = %film.identity, failover = film.failover.as_ref().map(FailoverId::as_str),
                    cameras = film.cameras.len(), range = ?film.range, "filming"
                );
                Order::Film(film, self.assigned_by)
            }
            Effect::StopFilming => {
                tracing::info!("filming ends");
                Order::Stop
            }
            Effect::EraseAll(erasure) => Order::EraseAll(erasure),
            Effect::CloseSegments(failover) => Order::Close(failover),
            Effect::Erase { failover, up_to } => return self.tools.keeper.erase(failover, up_to),
            Effect::Keep(failover) => return self.tools.keeper.keep(failover),
            Effect::FetchBundle(hash) => return self.fetch(Some(hash)),
            Effect::Conflict(epoch) => {
                return tracing::error!(
                    %epoch,
                    "an assignment was refused: this epoch came before, with other contents; \
                     is a second orchestrator at work, or an old backup?"
                );
            }
            Effect::Report => return self.schedule.changed(Instant::now()),
            // Carried out before it comes here, since it can fail.
            Effect::Persist(_) => return,
        };
        // Fails only when the director has ended, and the process with it.
        let _ = self.tools.orders.send(order).await;
    }

    fn fetch(&self, hash: Option<BundleHash>) {
        self.tools.wanted.send_if_modified(|wanted| {
            let changed = *wanted != hash;
            *wanted = hash;
            changed
        });
    }

    async fn stored(&mut self, bundle: Bundle) {
        for camera in &bundle.cameras {
            self.cameras.insert(camera.id.clone(), camera.clone());
        }
        self.tools
            .limits
            .send_replace(self.cameras.values().cloned().collect());
        if *self.tools.wanted.borrow() == Some(bundle.hash()) {
            self.fetch(None);
        }
        self.add_first(Input::BundleStored(bundle));
        for hash in self.reconciler.forget_old_bundles() {
            let name = hash.clone();
            if let Err(error) = self.on_disk(move |disk| disk.remove_bundle(&name)).await {
                tracing::warn!(bundle.hash = %hash, %error, "old settings could not be removed");
            }
        }
    }

    async fn on_disk(&self, work: impl FnOnce(&Disk) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let disk = self.tools.disk.clone();
        tokio::task::spawn_blocking(move || work(&disk))
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }

    fn refuse(&mut self, error: &io::Error) {
        let why =
            format!("the disk does not take what the host sent ({error}); it is tried again every second");
        if self.refused != why {
            tracing::error!(%error, "an assignment or settings can't be put on disk; trying again");
        }
        self.tools.assigned.not_ready(why.clone());
        self.refused = why;
    }

    fn say_how_it_is(&self) {
        match self.reconciler.assignment() {
            None => self.tools.assigned.not_ready(
                "the host has assigned nothing to this server yet; it films nothing. Is it enrolled under this id?",
            ),
            Some(Assignment {
                role: Role::Films(films),
                ..
            }) if self.reconciler.filming().is_none() => {
                self.tools.assigned.not_ready(format!("the settings {} are not here yet", films.settings));
            }
            Some(_) => self.tools.assigned.ready(),
        }
    }

    fn report(&mut self) {
        self.sequence += 1;
        let report = self.reconciler.report(
            self.domain.clone(),
            self.incarnation.clone(),
            self.sequence,
            Some(self.max_cameras),
        );
        let relay = *self.tools.relay.address().borrow();
        let report = ServerReport {
            relay: relay.map(|address| self.config.relay_url(address)),
            right_to_act: Some(self.tools.acting.shown()),
            room: self.tools.room.borrow().clone(),
            ..report
        };
        self.tools.reports.send_replace(Some(report));
        self.schedule.reported(Instant::now());
    }

    fn count(&self, since: Duration) {
        let report = self
            .reconciler
            .report(self.domain.clone(), self.incarnation.clone(), 0, None);
        self.tools.metrics.cameras(&report.cameras, since);
        self.tools
            .metrics
            .live(self.tools.relay.viewers(), self.tools.studio.damaged_pictures());
    }
}

fn describe(role: &Role) -> String {
    match role {
        Role::Standby => "standby".to_owned(),
        Role::Erases { erasure } => format!("erases everything ({erasure})"),
        Role::HandsBack { failover } => format!("hands back {failover}"),
        Role::Films(films) => match &films.failover {
            Some(failover) => format!("stands in for {} ({failover})", films.identity),
            None => format!("films as {}", films.identity),
        },
    }
}
