use serde_json::{Value, json};

use super::super::kinds::Reading as HowRead;
use super::*;

/// A picture that hears what a test says, and its clock.
struct Told {
    picture: Picture,
    now: Instant,
}

impl Told {
    fn new() -> Self {
        Self::remembering(Vec::new())
    }

    fn remembering(documents: Vec<Arc<str>>) -> Self {
        Self {
            picture: Picture::new(documents, true),
            now: Instant::now(),
        }
    }

    /// Everything listed, with these objects.
    fn complete(objects: &[(Feed, Value)]) -> Self {
        let mut told = Self::new();
        told.list_all(objects);
        told
    }

    fn list_all(&mut self, objects: &[(Feed, Value)]) {
        let feeds: Vec<Feed> = self.picture.feeds.keys().copied().collect();
        for feed in feeds {
            let of_feed: Vec<Value> = objects
                .iter()
                .filter(|(of, _)| *of == feed)
                .map(|(_, it)| it.clone())
                .collect();
            self.list(feed, &of_feed);
        }
    }

    fn list(&mut self, feed: Feed, objects: &[Value]) {
        self.hear(feed, Said::Begin);
        for object in objects {
            self.hear(feed, Said::Listed(sight(feed, object)));
        }
        self.hear(feed, Said::Complete);
    }

    fn hear(&mut self, feed: Feed, said: Said) {
        self.picture.hear(feed, said, self.now);
    }

    fn change(&mut self, feed: Feed, object: &Value) {
        self.hear(feed, Said::Changed(sight(feed, object)));
    }

    fn gone(&mut self, feed: Feed, namespace: &str, name: &str) {
        self.hear(feed, Said::Gone(namespace.into(), name.into()));
    }

    fn update(&mut self) -> Option<Update> {
        self.picture.update(self.now)
    }

    /// The changes of the next update, in words.
    fn changes(&mut self) -> Vec<String> {
        self.update().map(words).unwrap_or_default()
    }
}

fn words(update: Update) -> Vec<String> {
    let word = |change| match change {
        Change::Apply(Object::Pod(pod)) => format!("+Pod {}", pod.metadata.name.unwrap_or_default()),
        Change::Apply(Object::Policy(policy)) => {
            let allows = policy
                .specs
                .iter()
                .any(|spec| spec.rules().any(|rule| rule.action == policy::Action::Allow));
            format!("+{} {}", if allows { "Policy" } else { "Closed" }, policy.id)
        }
        Change::Apply(other) => format!("+{other:?}").chars().take(12).collect(),
        Change::Delete(key) => format!("-{key}"),
    };
    update.changes.into_iter().map(word).collect()
}

fn sight(feed: Feed, object: &Value) -> Sight {
    use super::super::wire::{Core, Visible};
    let kind = Kind::of(feed);
    match kind.reading {
        HowRead::Core => serde_json::from_value::<Core>(object.clone()).unwrap().sight(kind),
        _ => serde_json::from_value::<kube::core::dynamic::DynamicObject>(object.clone())
            .unwrap()
            .sight(kind),
    }
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "here"},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

fn policy(name: &str, egress: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
        "spec": {"endpointSelector": {"matchLabels": {"app": "a"}}, "egress": egress},
    })
}

fn by_name() -> Value {
    json!([{"toFQDNs": [{"matchName": "a.example"}]}])
}

fn by_pod() -> Value {
    json!([{"toEndpoints": [{"matchLabels": {"app": "db"}}]}])
}

const POLICIES: Feed = Feed::CiliumNetworkPolicies;

#[test]
fn nothing_is_said_before_every_list_is_complete() {
    let mut told = Told::new();
    told.list(Feed::LocalPods, &[pod("a", "10.0.0.1")]);
    assert_eq!(told.update(), None);
    let awaited: Vec<Feed> = told.picture.awaited().collect();
    assert!(awaited.contains(&Feed::Nodes) && !awaited.contains(&Feed::LocalPods));
    told.list_all(&[(Feed::LocalPods, pod("a", "10.0.0.1"))]);
    assert_eq!(told.changes(), ["+Pod a"]);
    assert_eq!(told.update(), None);
}

#[test]
fn an_empty_cluster_is_a_complete_list_too() {
    let mut told = Told::complete(&[]);
    assert_eq!(told.update(), Some(Update::default()));
}

#[test]
fn an_object_that_looks_the_same_is_no_news() {
    let mut told = Told::complete(&[(Feed::LocalPods, pod("a", "10.0.0.1"))]);
    told.update();
    let mut beat = pod("a", "10.0.0.1");
    beat["status"]["conditions"] = json!([{"type": "Ready", "lastProbeTime": "now"}]);
    beat["metadata"]["resourceVersion"] = "8".into();
    told.change(Feed::LocalPods, &beat);
    assert_eq!(told.update(), None);
    told.change(Feed::LocalPods, &pod("a", "10.0.0.2"));
    assert_eq!(told.changes(), ["+Pod a"]);
}

#[test]
fn a_list_that_is_read_again_counts_when_it_is_complete() {
    let mut told = Told::complete(&[
        (Feed::LocalPods, pod("a", "10.0.0.1")),
        (Feed::LocalPods, pod("b", "10.0.0.2")),
    ]);
    told.update();
    told.hear(Feed::LocalPods, Said::Begin);
    told.hear(
        Feed::LocalPods,
        Said::Listed(sight(Feed::LocalPods, &pod("c", "10.0.0.1"))),
    );
    assert_eq!(told.update(), None);
    // The watch broke in between, and begins anew.
    told.hear(Feed::LocalPods, Said::Begin);
    told.hear(
        Feed::LocalPods,
        Said::Listed(sight(Feed::LocalPods, &pod("b", "10.0.0.2"))),
    );
    told.hear(
        Feed::LocalPods,
        Said::Listed(sight(Feed::LocalPods, &pod("d", "10.0.0.1"))),
    );
    told.hear(Feed::LocalPods, Said::Complete);
    assert_eq!(
        told.changes(),
        ["-Pod shop/a", "+Pod d"],
        "whose address it was is gone first"
    );
}

#[test]
fn an_object_that_comes_and_goes_between_two_updates_is_said_to_be_gone() {
    let mut told = Told::complete(&[]);
    told.update();
    told.change(Feed::LocalPods, &pod("a", "10.0.0.1"));
    told.gone(Feed::LocalPods, "shop", "a");
    assert_eq!(told.changes(), ["-Pod shop/a"]);
}

#[test]
fn a_refused_policy_keeps_its_last_good_version() {
    let mut told = Told::complete(&[(POLICIES, policy("p", by_name()))]);
    assert_eq!(told.changes(), ["+Policy shop/p"]);
    let broken = policy("p", json!([{"toFQDNs": [{"matchName": "a..example"}]}]));
    told.change(POLICIES, &broken);
    let update = told.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::KeptLastGood);
    assert_eq!(
        update.reports[0].diagnostics[0].path,
        "spec.egress[0].toFQDNs[0].matchName"
    );
    assert_eq!(words(update), ["+Policy shop/p"]);
    // The earlier version is what a later process is told of.
    let [document] = told.picture.documents().try_into().unwrap();
    let mut later = Told::remembering(vec![document]);
    later.list_all(&[(POLICIES, broken.clone())]);
    assert_eq!(later.changes(), ["+Policy shop/p"]);
    // Without one, what stands in for it closes.
    told.gone(POLICIES, "shop", "p");
    told.update();
    told.change(POLICIES, &broken);
    let update = told.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::Rejected);
    assert_eq!(words(update), ["+Closed shop/p"]);
}

#[test]
fn every_version_of_a_policy_has_the_number_of_the_update_that_spoke_of_it() {
    let mut told = Told::complete(&[(POLICIES, policy("p", by_name()))]);
    told.update();
    let number = |told: &mut Told| {
        let [news] = told.picture.policy_news().try_into().unwrap();
        news.standing
            .map(|it: PolicyStanding| (it.update, it.standing.generation))
    };
    assert_eq!(number(&mut told), Some((1, 1)));
    let mut next = policy("p", json!([{}]));
    next["metadata"]["generation"] = 2.into();
    told.change(POLICIES, &next);
    assert_eq!(number(&mut told), Some((0, 2)));
    told.update();
    assert_eq!(number(&mut told), Some((2, 2)));
    // A status alone is news for whoever writes it, and no update.
    next["status"] = json!({"conditions": [{"type": "Valid"}]});
    told.change(POLICIES, &next);
    assert_eq!((told.update(), number(&mut told)), (None, Some((2, 2))));
    told.gone(POLICIES, "shop", "p");
    told.update();
    assert_eq!(number(&mut told), None);
}

#[test]
fn pods_of_other_nodes_are_followed_while_a_policy_speaks_of_pods() {
    let mut told = Told::complete(&[(POLICIES, policy("names", by_name()))]);
    told.update();
    assert!(!told.picture.wants_other_pods());
    told.change(POLICIES, &policy("pods", by_pod()));
    assert!(told.picture.wants_other_pods());
    told.change(Feed::LocalPods, &pod("a", "10.0.0.1"));
    assert_eq!(
        told.changes(),
        ["+Pod a"],
        "the policy waits for the pods, and nothing else does"
    );
    told.list(Feed::OtherPods, &[pod("db", "10.0.1.1")]);
    assert_eq!(told.changes(), ["+Pod db", "+Policy shop/pods"]);
    told.gone(POLICIES, "shop", "pods");
    assert!(!told.picture.wants_other_pods());
    assert_eq!(told.changes(), ["-Pod shop/db", "-CiliumNetworkPolicy shop/pods"]);
}

#[test]
fn a_policy_does_not_wait_for_pods_for_ever() {
    let mut told = Told::complete(&[]);
    told.update();
    told.change(POLICIES, &policy("pods", by_pod()));
    assert_eq!(told.changes(), Vec::<String>::new());
    told.now = told.picture.deadline().unwrap();
    assert_eq!(told.changes(), ["+Policy shop/pods"]);
    assert_eq!(told.picture.deadline(), None);
}

#[test]
fn the_first_list_has_the_pods_that_its_policies_speak_of() {
    let mut told = Told::complete(&[(POLICIES, policy("pods", by_pod()))]);
    assert_eq!(told.update(), None);
    told.list(Feed::OtherPods, &[pod("db", "10.0.1.1")]);
    assert_eq!(told.changes(), ["+Pod db", "+Policy shop/pods"]);
}

#[test]
fn pods_are_followed_where_nobody_else_says_which_addresses_are_theirs() {
    let node = |ranges: Value| json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ranges}});
    let mut told = Told::complete(&[(Feed::Nodes, node(json!([])))]);
    told.picture.ranges_configured = false;
    told.change(POLICIES, &policy("names", by_name()));
    assert!(told.picture.wants_other_pods());
    told.change(Feed::Nodes, &node(json!(["10.0.0.0/24"])));
    assert!(!told.picture.wants_other_pods());
}

#[test]
fn a_pod_that_is_bound_to_this_node_is_not_lost_with_the_watch_of_others() {
    let mut told = Told::complete(&[(POLICIES, policy("pods", by_pod()))]);
    told.list(Feed::OtherPods, &[pod("a", "10.0.1.1")]);
    told.update();
    told.change(Feed::LocalPods, &pod("a", "10.0.0.1"));
    told.gone(Feed::OtherPods, "shop", "a");
    let update = told.update().unwrap();
    assert!(
        matches!(&update.changes[..], [Change::Apply(Object::Pod(pod))] if pod.status.as_ref().unwrap().pod_ips.as_ref().unwrap()[0].ip == "10.0.0.1")
    );
    told.gone(Feed::LocalPods, "shop", "a");
    assert_eq!(told.changes(), ["-Pod shop/a"]);
}

#[test]
fn a_kind_that_is_missing_is_empty_but_not_at_once_where_it_was_not() {
    let mut told = Told::new();
    told.hear(POLICIES, Said::Absent);
    assert!(!told.picture.awaited().any(|feed| feed == POLICIES));
    told.list_all(&[(POLICIES, policy("p", by_name()))]);
    told.update();
    for _ in 1..MISSING {
        told.hear(POLICIES, Said::Absent);
        assert_eq!(told.update(), None);
    }
    told.hear(POLICIES, Said::Absent);
    assert_eq!(told.changes(), ["-CiliumNetworkPolicy shop/p"]);
    told.list(POLICIES, &[policy("p", by_name())]);
    assert_eq!(told.changes(), ["+Policy shop/p"]);
}

#[test]
fn what_an_earlier_process_had_in_force_is_until_the_lists_are_complete() {
    let mut told = Told::complete(&[
        (Feed::LocalPods, pod("a", "10.0.0.1")),
        (Feed::LocalPods, pod("b", "10.0.0.2")),
    ]);
    told.update();
    let mut later = Told::remembering(told.picture.documents());
    assert_eq!(words(later.picture.recall().unwrap()), ["+Pod a", "+Pod b"]);
    assert_eq!(later.picture.recall(), None);
    later.list(Feed::LocalPods, &[pod("b", "10.0.0.2"), pod("c", "10.0.0.1")]);
    assert_eq!(later.update(), None, "half a list");
    later.list_all(&[
        (Feed::LocalPods, pod("b", "10.0.0.2")),
        (Feed::LocalPods, pod("c", "10.0.0.1")),
    ]);
    assert_eq!(later.changes(), ["-Pod shop/a", "+Pod b", "+Pod c"]);
    assert_eq!(Told::new().picture.recall(), None);
}

#[test]
fn kinds_that_are_refused_as_such_are_reported() {
    let told = Told::complete(&[(
        Feed::ClusterNetworkPolicies,
        json!({"metadata": {"name": "p"}, "spec": {"tier": "Admin"}}),
    )]);
    let mut told = told;
    let update = told.update().unwrap();
    assert_eq!(update.reports.len(), 1);
}
