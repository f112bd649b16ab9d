//! The services: flows, state, nodes and namespaces of this node.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::EventRow;
use futures::{Stream, StreamExt, stream};
use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use crate::filter::FlowSelection;
use crate::flow::{FlowScene, flow, timestamp};
use crate::proto::flow::{Flow, LostEvent, LostEventSource};
use crate::proto::observer::observer_server::Observer;
use crate::proto::observer::{
    GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse,
    Namespace, Node, ServerStatusRequest, ServerStatusResponse, Tls, get_flows_response::ResponseTypes,
};
use crate::proto::peer::peer_server::Peer;
use crate::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest};
use crate::proto::relay::NodeState;

/// How often it is looked for new events. Whoever records one wakes nobody.
const PAUSE: Duration = Duration::from_millis(100);
/// Streams at a time. Each reads what is recorded by itself.
const STREAMS: usize = 64;

/// What is observed: the events of one node.
pub trait FlowSource: Send + Sync + 'static {
    /// The node, now.
    fn node(&self) -> ObservedNode;
    /// A reader of events: of what is remembered and what comes, or of what comes alone.
    fn read(&self, with_past: bool) -> Box<dyn FlowReader>;
    /// What is remembered now. Unlike a [`FlowReader`], it leaves the agent unwatched.
    fn remembered(&self) -> Vec<EventRow>;
    /// The kind of the policy of this name, where it is known.
    fn policy_kind(&self, policy: &str) -> Option<String>;
}

/// Reads events, each once.
pub trait FlowReader: Send + 'static {
    /// What was recorded since the last call. Where some were missed, the first row says how many.
    /// Never waits.
    fn next_rows(&mut self) -> Vec<EventRow>;
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// Its cluster.
    pub cluster: String,
    /// Its name in it.
    pub name: String,
    /// The version of its agent.
    pub version: String,
    /// How long that agent runs.
    pub uptime: Duration,
    /// Events that are remembered.
    pub remembered: u64,
    /// Events that are remembered at the most.
    pub capacity: u64,
    /// Events that were recorded since the start.
    pub seen: u64,
}

/// The services of one node.
#[derive(Clone)]
pub struct NodeObserver {
    source: Arc<dyn FlowSource>,
    /// Where it is asked, as clients write it.
    address: String,
    /// Whether it is asked over TLS.
    tls: bool,
    streams: Arc<Semaphore>,
}

/// What the services answer with, one after the other.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl NodeObserver {
    /// The services over `source`, which are asked at `address`.
    pub fn new(source: Arc<dyn FlowSource>, address: String, tls: bool) -> Self {
        Self {
            source,
            address,
            tls,
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| Status::resource_exhausted(format!("{STREAMS} clients are served already")))
    }
}

/// Reads what the source has in memory, off the threads that answer lookups.
async fn collect<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("the question could not be answered"))
}

/// What one client is told.
struct FlowFeed {
    source: Arc<dyn FlowSource>,
    reader: Box<dyn FlowReader>,
    selection: FlowSelection,
    /// Of what is remembered, only so many: the first or the last.
    number: Option<usize>,
    first: bool,
    follow: bool,
    /// Whether what is remembered was told already.
    began: bool,
    _permit: OwnedSemaphorePermit,
}

impl FlowFeed {
    /// What has come since.
    fn next_answers(&mut self) -> Vec<GetFlowsResponse> {
        let node = self.source.node();
        let source = Arc::clone(&self.source);
        let kind_of = move |policy: &str| source.policy_kind(policy);
        let scene = FlowScene {
            cluster: &node.cluster,
            version: &node.version,
            kind_of: &kind_of,
        };
        let mut lost = Vec::new();
        let mut told = VecDeque::new();
        for row in self.reader.next_rows() {
            if let Some(count) = row.lost {
                lost.push(lost_events(&row, count, scene));
            } else if let Some(flow) = flow(&row, scene).filter(|flow| self.selection.takes(flow)) {
                told.push_back(flow);
            }
        }
        if !self.began
            && let Some(number) = self.number
        {
            match self.first {
                true => told.truncate(number),
                false => drop(told.drain(..told.len().saturating_sub(number))),
            }
        }
        self.began = true;
        lost.into_iter().chain(told.into_iter().map(flow_answer)).collect()
    }
}

fn flow_answer(flow: Flow) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: flow.node_name.clone(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

fn lost_events(row: &EventRow, count: u64, scene: FlowScene<'_>) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: format!("{}/{}", scene.cluster, row.node),
        time: timestamp(row),
        response_types: Some(ResponseTypes::LostEvents(LostEvent {
            source: LostEventSource::HubbleRingBuffer.into(),
            num_events_lost: count,
        })),
    }
}

fn feed_stream(feed: FlowFeed) -> Answers<GetFlowsResponse> {
    let batches = stream::unfold(feed, |mut feed| async move {
        if feed.began {
            if !feed.follow {
                return None;
            }
            sleep(PAUSE).await;
        }
        let batch = spawn_blocking(move || {
            let answers = feed.next_answers();
            (feed, answers)
        });
        let (feed, answers) = batch.await.ok()?;
        Some((stream::iter(answers.into_iter().map(Ok)), feed))
    });
    batches.flatten().boxed()
}

#[tonic::async_trait]
impl Observer for NodeObserver {
    type GetFlowsStream = Answers<GetFlowsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let GetFlowsRequest {
            number,
            first,
            follow,
            blacklist,
            whitelist,
            since,
            until,
        } = request.into_inner();
        if first && follow {
            return Err(Status::invalid_argument(
                "`first` speaks of what is remembered: it cannot follow",
            ));
        }
        let asks_for_past = !follow || number > 0 || since.is_some();
        let selection = FlowSelection::new(&whitelist, &blacklist, (since, until))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let permit = self.permit()?;
        Ok(Response::new(feed_stream(FlowFeed {
            source: Arc::clone(&self.source),
            reader: self.source.read(asks_for_past),
            selection,
            number: usize::try_from(number).ok().filter(|number| *number > 0),
            first,
            follow,
            began: false,
            _permit: permit,
        })))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let source = Arc::clone(&self.source);
        let node = collect(move || source.node()).await?;
        Ok(Response::new(GetNodesResponse {
            nodes: vec![Node {
                name: format!("{}/{}", node.cluster, node.name),
                version: node.version,
                address: self.address.clone(),
                state: NodeState::NodeConnected.into(),
                tls: Some(Tls {
                    enabled: self.tls,
                    server_name: String::new(),
                }),
                uptime_ns: nanos(node.uptime),
                num_flows: node.remembered,
                max_flows: node.capacity,
                seen_flows: node.seen,
            }],
        }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let source = Arc::clone(&self.source);
        let namespaces = collect(move || namespaces(&source.remembered(), &source.node().cluster)).await?;
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        let source = Arc::clone(&self.source);
        let (node, rows) = collect(move || (source.node(), source.remembered())).await?;
        Ok(Response::new(ServerStatusResponse {
            num_flows: node.remembered,
            max_flows: node.capacity,
            seen_flows: node.seen,
            uptime_ns: nanos(node.uptime),
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(0),
            flows_rate: rate(&rows),
            version: format!("namegate {}", node.version),
        }))
    }
}

#[tonic::async_trait]
impl Peer for NodeObserver {
    type NotifyStream = Answers<ChangeNotification>;

    /// Tells of this node alone, and stays: a relay would take an end for one of the connection.
    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let permit = self.permit()?;
        let node = self.source.node();
        let own = ChangeNotification {
            name: format!("{}/{}", node.cluster, node.name),
            address: self.address.clone(),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls: self.tls.then(crate::proto::peer::Tls::default),
        };
        let rest = stream::pending().map(move |item: Result<ChangeNotification, Status>| {
            let _held = &permit;
            item
        });
        Ok(Response::new(stream::iter([Ok(own)]).chain(rest).boxed()))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The namespaces of pods that something is remembered of.
fn namespaces(rows: &[EventRow], cluster: &str) -> Vec<Namespace> {
    let ends = rows.iter().flat_map(|row| [&row.source, &row.destination]).flatten();
    let names: BTreeSet<&String> = ends.filter_map(|end| end.namespace.as_ref()).collect();
    let namespace = |name: &String| Namespace {
        cluster: cluster.to_owned(),
        namespace: name.clone(),
    };
    names.into_iter().map(namespace).collect()
}

/// Events a second, over the minute before the latest one.
fn rate(rows: &[EventRow]) -> f64 {
    const MINUTE: i64 = 60;
    let seconds: Vec<i64> = rows
        .iter()
        .filter_map(timestamp)
        .map(|time: Timestamp| time.seconds)
        .collect();
    let Some(latest) = seconds.iter().max() else {
        return 0.0;
    };
    let recent = seconds.iter().filter(|second| **second > latest - MINUTE).count();
    f64::from(u32::try_from(recent).unwrap_or(u32::MAX)) / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::samples::{answered_lookup, audited_flow, refused_lookup};
    use crate::proto::flow::FlowFilter;

    struct Remembered(Vec<EventRow>);

    impl FlowSource for Remembered {
        fn node(&self) -> ObservedNode {
            ObservedNode {
                cluster: "default".into(),
                name: "node-1".into(),
                version: "0.0.0".into(),
                ..ObservedNode::default()
            }
        }

        fn read(&self, with_past: bool) -> Box<dyn FlowReader> {
            Box::new(Once(if with_past { self.0.clone() } else { Vec::new() }))
        }

        fn remembered(&self) -> Vec<EventRow> {
            self.0.clone()
        }

        fn policy_kind(&self, _: &str) -> Option<String> {
            None
        }
    }

    struct Once(Vec<EventRow>);

    impl FlowReader for Once {
        fn next_rows(&mut self) -> Vec<EventRow> {
            std::mem::take(&mut self.0)
        }
    }

    fn observer() -> NodeObserver {
        let lost = EventRow {
            lost: Some(5),
            node: "node-1".into(),
            ..EventRow::default()
        };
        let rows = vec![lost, refused_lookup(), answered_lookup(), audited_flow()];
        NodeObserver::new(Arc::new(Remembered(rows)), "unix:///x".into(), false)
    }

    async fn told(request: GetFlowsRequest) -> Vec<String> {
        let stream = observer().get_flows(Request::new(request)).await.unwrap().into_inner();
        let answers: Vec<_> = stream.map(Result::unwrap).collect().await;
        let text = |answer: GetFlowsResponse| match answer.response_types.unwrap() {
            ResponseTypes::Flow(flow) => flow.summary.split(':').next().unwrap_or_default().to_owned(),
            ResponseTypes::LostEvents(lost) => format!("lost {}", lost.num_events_lost),
        };
        answers.into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn the_last_or_first_of_what_is_asked_for_are_told_and_what_was_lost() {
        let all = [
            "lost 5",
            "DNS Query mail.example.",
            "DNS Answer \"198.51.100.7\" (Proxy api.example.)",
            "TCP by spec.egressDeny[0]",
        ];
        assert_eq!(told(GetFlowsRequest::default()).await, all);
        let last = GetFlowsRequest {
            number: 1,
            ..GetFlowsRequest::default()
        };
        assert_eq!(told(last.clone()).await, [all[0], all[3]]);
        let dns = FlowFilter {
            protocol: vec!["dns".into()],
            ..FlowFilter::default()
        };
        let last_of_dns = GetFlowsRequest {
            whitelist: vec![dns],
            ..last.clone()
        };
        assert_eq!(told(last_of_dns).await, [all[0], all[2]], "counted behind the filter");
        let first = GetFlowsRequest { first: true, ..last };
        assert_eq!(told(first).await, [all[0], all[1]]);
    }

    #[tokio::test]
    async fn questions_that_cannot_be_answered_are_refused() {
        let refused = |request: GetFlowsRequest| async move {
            let answer = observer().get_flows(Request::new(request)).await;
            answer.map(|_| ()).unwrap_err().code()
        };
        let first_and_follow = GetFlowsRequest {
            first: true,
            follow: true,
            ..GetFlowsRequest::default()
        };
        assert_eq!(refused(first_and_follow).await, tonic::Code::InvalidArgument);
        let of_a_service = FlowFilter {
            source_service: vec!["a/b".into()],
            ..FlowFilter::default()
        };
        let unknown = GetFlowsRequest {
            whitelist: vec![of_a_service],
            ..GetFlowsRequest::default()
        };
        assert_eq!(refused(unknown).await, tonic::Code::InvalidArgument);
    }

    #[tokio::test]
    async fn there_are_only_so_many_streams_and_each_gives_its_place_back() {
        let observer = observer();
        let follow = || {
            Request::new(GetFlowsRequest {
                follow: true,
                ..GetFlowsRequest::default()
            })
        };
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(observer.get_flows(follow()).await.unwrap());
        }
        let refused = observer
            .notify(Request::new(NotifyRequest {}))
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(streams);
        let mut own = observer
            .notify(Request::new(NotifyRequest {}))
            .await
            .unwrap()
            .into_inner();
        let own = own.next().await.unwrap().unwrap();
        assert_eq!(
            (own.name.as_str(), own.address.as_str()),
            ("default/node-1", "unix:///x")
        );
    }

    #[tokio::test]
    async fn namespaces_are_those_of_pods_with_events() {
        let answer = observer()
            .get_namespaces(Request::new(GetNamespacesRequest {}))
            .await
            .unwrap();
        let namespaces = answer.into_inner().namespaces;
        assert_eq!(namespaces.len(), 1);
        assert_eq!(
            (namespaces[0].cluster.as_str(), namespaces[0].namespace.as_str()),
            ("default", "shop")
        );
        let status = observer()
            .server_status(Request::new(ServerStatusRequest {}))
            .await
            .unwrap();
        assert!(status.into_inner().flows_rate > 0.0);
    }
}
