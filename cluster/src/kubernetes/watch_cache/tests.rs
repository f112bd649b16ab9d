use serde_json::{Value, json};

use super::super::resources::KeptFields;
use super::*;

/// A cache that hears what a test says, and its clock.
struct WatchCacheTest {
    cache: WatchCache,
    now: Instant,
}

impl WatchCacheTest {
    fn new() -> Self {
        Self::remembering(Vec::new())
    }

    fn remembering(earlier: Vec<KeptObject>) -> Self {
        Self {
            cache: WatchCache::new(&WatchScope::Node("node-1".to_owned()), earlier, true),
            now: Instant::now(),
        }
    }

    /// Everything listed, with these objects.
    fn complete(objects: &[(Resource, Value)]) -> Self {
        let mut test = Self::new();
        test.list_all(objects);
        test
    }

    fn list_all(&mut self, objects: &[(Resource, Value)]) {
        let resources: Vec<Resource> = self.cache.resources.keys().copied().collect();
        for resource in resources {
            let of_resource: Vec<Value> = objects
                .iter()
                .filter(|(of, _)| *of == resource)
                .map(|(_, it)| it.clone())
                .collect();
            self.list(resource, &of_resource);
        }
    }

    fn list(&mut self, resource: Resource, objects: &[Value]) {
        // Its watch begins after an update.
        self.cache.settle_other_pods(self.now);
        self.handle(resource, WatchEvent::Init);
        for object in objects {
            self.handle(resource, WatchEvent::InitApply(observed(resource, object)));
        }
        self.handle(resource, WatchEvent::InitDone);
    }

    fn handle(&mut self, resource: Resource, event: WatchEvent) {
        self.cache.handle(resource, event);
    }

    fn change(&mut self, resource: Resource, object: &Value) {
        self.handle(resource, WatchEvent::Apply(observed(resource, object)));
    }

    fn gone(&mut self, resource: Resource, namespace: &str, name: &str) {
        self.handle(resource, WatchEvent::Delete(namespace.into(), name.into()));
    }

    fn update(&mut self) -> Option<Update> {
        self.cache.update(self.now)
    }

    /// The changes of the next update, in words.
    fn changes(&mut self) -> Vec<String> {
        self.update().map(words).unwrap_or_default()
    }
}

fn words(update: Update) -> Vec<String> {
    let word = |change| match change {
        ObjectChange::Apply(Object::Pod(pod)) => format!("+Pod {}", pod.name),
        ObjectChange::Apply(Object::Policy(policy)) => {
            let allows = policy
                .specs
                .iter()
                .any(|spec| spec.rules().any(|rule| rule.action == policy::Action::Allow));
            format!("+{} {}", if allows { "Policy" } else { "Closed" }, policy.id)
        }
        ObjectChange::Apply(other) => format!("+{other:?}").chars().take(12).collect(),
        ObjectChange::Delete(key) => format!("-{key}"),
    };
    update.changes.into_iter().map(word).collect()
}

fn observed(resource: Resource, object: &Value) -> ObservedObject {
    use super::super::wire::Observe;
    use crate::slim::WireObject;
    let kind = ResourceKind::of(resource);
    match kind.kept {
        KeptFields::Selected => serde_json::from_value::<WireObject>(object.clone())
            .unwrap()
            .observe(kind),
        _ => serde_json::from_value::<kube::core::dynamic::DynamicObject>(object.clone())
            .unwrap()
            .observe(kind),
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

const POLICIES: Resource = Resource::CiliumNetworkPolicies;

#[test]
fn nothing_is_said_before_every_list_is_complete() {
    let mut test = WatchCacheTest::new();
    test.list(Resource::LocalPods, &[pod("a", "10.0.0.1")]);
    assert_eq!(test.update(), None);
    let awaited: Vec<Resource> = test.cache.awaited().collect();
    assert!(awaited.contains(&Resource::Nodes) && !awaited.contains(&Resource::LocalPods));
    test.list_all(&[(Resource::LocalPods, pod("a", "10.0.0.1"))]);
    assert_eq!(test.changes(), ["+Pod a"]);
    assert_eq!(test.update(), None);
}

#[test]
fn an_empty_cluster_is_a_complete_list_too() {
    let mut test = WatchCacheTest::complete(&[]);
    assert_eq!(test.update(), Some(Update::default()));
}

#[test]
fn an_object_that_looks_the_same_is_no_news() {
    let mut test = WatchCacheTest::complete(&[(Resource::LocalPods, pod("a", "10.0.0.1"))]);
    test.update();
    let mut beat = pod("a", "10.0.0.1");
    beat["status"]["conditions"] = json!([{"type": "Ready", "lastProbeTime": "now"}]);
    beat["metadata"]["resourceVersion"] = "8".into();
    test.change(Resource::LocalPods, &beat);
    assert_eq!(test.update(), None);
    test.change(Resource::LocalPods, &pod("a", "10.0.0.2"));
    assert_eq!(test.changes(), ["+Pod a"]);
}

#[test]
fn a_list_that_is_read_again_counts_when_it_is_complete() {
    let mut test = WatchCacheTest::complete(&[
        (Resource::LocalPods, pod("a", "10.0.0.1")),
        (Resource::LocalPods, pod("b", "10.0.0.2")),
    ]);
    test.update();
    test.handle(Resource::LocalPods, WatchEvent::Init);
    test.handle(
        Resource::LocalPods,
        WatchEvent::InitApply(observed(Resource::LocalPods, &pod("c", "10.0.0.1"))),
    );
    assert_eq!(test.update(), None);
    // The watch broke in between, and begins anew.
    test.handle(Resource::LocalPods, WatchEvent::Init);
    test.handle(
        Resource::LocalPods,
        WatchEvent::InitApply(observed(Resource::LocalPods, &pod("b", "10.0.0.2"))),
    );
    test.handle(
        Resource::LocalPods,
        WatchEvent::InitApply(observed(Resource::LocalPods, &pod("d", "10.0.0.1"))),
    );
    test.handle(Resource::LocalPods, WatchEvent::InitDone);
    assert_eq!(
        test.changes(),
        ["-Pod shop/a", "+Pod d"],
        "whose address it was is gone first"
    );
}

#[test]
fn an_object_that_comes_and_goes_between_two_updates_is_said_to_be_gone() {
    let mut test = WatchCacheTest::complete(&[]);
    test.update();
    test.change(Resource::LocalPods, &pod("a", "10.0.0.1"));
    test.gone(Resource::LocalPods, "shop", "a");
    assert_eq!(test.changes(), ["-Pod shop/a"]);
}

#[test]
fn a_refused_policy_keeps_its_last_good_version() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("p", by_name()))]);
    assert_eq!(test.changes(), ["+Policy shop/p"]);
    let broken = policy("p", json!([{"toFQDNs": [{"matchName": "a..example"}]}]));
    test.change(POLICIES, &broken);
    let update = test.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::KeptLastGood);
    assert_eq!(
        update.reports[0].diagnostics[0].path,
        "spec.egress[0].toFQDNs[0].matchName"
    );
    assert_eq!(words(update), ["+Policy shop/p"]);
    // The earlier version is what a later process is told of.
    let [kept] = test.cache.kept_objects().try_into().unwrap();
    let mut later = WatchCacheTest::remembering(vec![kept]);
    later.list_all(&[(POLICIES, broken.clone())]);
    assert_eq!(later.changes(), ["+Policy shop/p"]);
    // Without one, what stands in for it closes.
    test.gone(POLICIES, "shop", "p");
    test.update();
    test.change(POLICIES, &broken);
    let update = test.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::Rejected);
    assert_eq!(words(update), ["+Closed shop/p"]);
}

#[test]
fn every_version_of_a_policy_has_the_number_of_the_update_that_spoke_of_it() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("p", by_name()))]);
    test.update();
    let number = |test: &mut WatchCacheTest| {
        let [news] = test.cache.policy_news().try_into().unwrap();
        news.policy.map(|it: ObservedPolicy| (it.update, it.version.generation))
    };
    assert_eq!(number(&mut test), Some((1, 1)));
    let mut next = policy("p", json!([{}]));
    next["metadata"]["generation"] = 2.into();
    test.change(POLICIES, &next);
    assert_eq!(number(&mut test), Some((0, 2)));
    test.update();
    assert_eq!(number(&mut test), Some((2, 2)));
    // A status alone is news for whoever writes it, and no update.
    next["status"] = json!({"conditions": [{"type": "Valid"}]});
    test.change(POLICIES, &next);
    assert_eq!((test.update(), number(&mut test)), (None, Some((2, 2))));
    test.gone(POLICIES, "shop", "p");
    test.update();
    assert_eq!(number(&mut test), None);
}

#[test]
fn pods_of_other_nodes_are_followed_while_a_policy_speaks_of_pods() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("names", by_name()))]);
    test.update();
    assert!(!test.cache.wants_other_pods());
    test.change(POLICIES, &policy("pods", by_pod()));
    assert!(test.cache.wants_other_pods());
    test.change(Resource::LocalPods, &pod("a", "10.0.0.1"));
    assert_eq!(
        test.changes(),
        ["+Pod a"],
        "the policy waits for the pods, and nothing else does"
    );
    test.list(Resource::OtherPods, &[pod("db", "10.0.1.1")]);
    assert_eq!(test.changes(), ["+Pod db", "+Policy shop/pods"]);
    test.gone(POLICIES, "shop", "pods");
    assert!(!test.cache.wants_other_pods());
    assert_eq!(test.changes(), ["-Pod shop/db", "-CiliumNetworkPolicy shop/pods"]);
}

/// The watch of them goes on: a list that is waited for anew would never come.
#[test]
fn pods_that_are_followed_stay_known_where_another_policy_comes_at_once_for_the_last_one() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("pods", by_pod()))]);
    test.list(Resource::OtherPods, &[pod("db", "10.0.1.1")]);
    test.update();
    test.gone(POLICIES, "shop", "pods");
    test.change(
        POLICIES,
        &policy("pods", json!([{"toEndpoints": [{"matchLabels": {"app": "other"}}]}])),
    );
    assert_eq!(test.changes(), ["+Policy shop/pods"]);
    assert_eq!(test.cache.deadline(), None);
    test.change(Resource::OtherPods, &pod("db", "10.0.1.2"));
    assert_eq!(test.changes(), ["+Pod db"]);
}

/// What a watch that was ended had still to say is no list.
#[test]
fn the_end_of_a_list_that_never_began_takes_nothing_away() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("p", by_name()))]);
    test.update();
    test.handle(POLICIES, WatchEvent::InitDone);
    assert_eq!(test.update(), None);
}

#[test]
fn a_policy_does_not_wait_for_pods_for_ever() {
    let mut test = WatchCacheTest::complete(&[]);
    test.update();
    test.change(POLICIES, &policy("pods", by_pod()));
    assert_eq!(test.changes(), Vec::<String>::new());
    test.now = test.cache.deadline().unwrap();
    assert_eq!(test.changes(), ["+Policy shop/pods"]);
    assert_eq!(test.cache.deadline(), None);
}

#[test]
fn the_first_list_has_the_pods_that_its_policies_speak_of() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("pods", by_pod()))]);
    assert_eq!(test.update(), None);
    test.list(Resource::OtherPods, &[pod("db", "10.0.1.1")]);
    assert_eq!(test.changes(), ["+Pod db", "+Policy shop/pods"]);
}

#[test]
fn pods_are_followed_where_nobody_else_says_which_addresses_are_theirs() {
    let node = |ranges: Value| json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ranges}});
    let mut test = WatchCacheTest::complete(&[(Resource::Nodes, node(json!([])))]);
    test.cache.ranges_configured = false;
    test.change(POLICIES, &policy("names", by_name()));
    assert!(test.cache.wants_other_pods());
    test.change(Resource::Nodes, &node(json!(["10.0.0.0/24"])));
    assert!(!test.cache.wants_other_pods());
}

#[test]
fn a_pod_that_is_bound_to_this_node_is_not_lost_with_the_watch_of_others() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("pods", by_pod()))]);
    test.list(Resource::OtherPods, &[pod("a", "10.0.1.1")]);
    test.update();
    test.change(Resource::LocalPods, &pod("a", "10.0.0.1"));
    test.gone(Resource::OtherPods, "shop", "a");
    let update = test.update().unwrap();
    assert!(
        matches!(&update.changes[..], [ObjectChange::Apply(Object::Pod(pod))] if pod.addresses.as_slice() == [std::net::IpAddr::from([10, 0, 0, 1])])
    );
    test.gone(Resource::LocalPods, "shop", "a");
    assert_eq!(test.changes(), ["-Pod shop/a"]);
}

#[test]
fn a_kind_that_is_missing_is_empty_but_not_at_once_where_it_was_not() {
    let mut test = WatchCacheTest::new();
    test.handle(POLICIES, WatchEvent::KindAbsent);
    assert!(!test.cache.awaited().any(|resource| resource == POLICIES));
    test.list_all(&[(POLICIES, policy("p", by_name()))]);
    test.update();
    for _ in 1..MISSING {
        test.handle(POLICIES, WatchEvent::KindAbsent);
        assert_eq!(test.update(), None);
    }
    test.handle(POLICIES, WatchEvent::KindAbsent);
    assert_eq!(test.changes(), ["-CiliumNetworkPolicy shop/p"]);
    test.list(POLICIES, &[policy("p", by_name())]);
    assert_eq!(test.changes(), ["+Policy shop/p"]);
}

#[test]
fn what_an_earlier_process_had_in_force_is_until_the_lists_are_complete() {
    let mut test = WatchCacheTest::complete(&[
        (Resource::LocalPods, pod("a", "10.0.0.1")),
        (Resource::LocalPods, pod("b", "10.0.0.2")),
    ]);
    test.update();
    let mut later = WatchCacheTest::remembering(test.cache.kept_objects());
    assert_eq!(words(later.cache.recall().unwrap()), ["+Pod a", "+Pod b"]);
    assert_eq!(later.cache.recall(), None);
    later.list(Resource::LocalPods, &[pod("b", "10.0.0.2"), pod("c", "10.0.0.1")]);
    assert_eq!(later.update(), None, "half a list");
    later.list_all(&[
        (Resource::LocalPods, pod("b", "10.0.0.2")),
        (Resource::LocalPods, pod("c", "10.0.0.1")),
    ]);
    assert_eq!(later.changes(), ["-Pod shop/a", "+Pod b", "+Pod c"]);
    assert_eq!(WatchCacheTest::new().cache.recall(), None);
}

#[test]
fn kinds_that_are_refused_as_such_are_reported() {
    let test = WatchCacheTest::complete(&[(
        Resource::ClusterNetworkPolicies,
        json!({"metadata": {"name": "p"}, "spec": {"tier": "Admin"}}),
    )]);
    let mut test = test;
    let update = test.update().unwrap();
    assert_eq!(update.reports.len(), 1);
}

#[test]
fn a_pod_that_is_refused_keeps_its_last_good_version_until_it_is_gone() {
    let mut test = WatchCacheTest::complete(&[(Resource::LocalPods, pod("a", "10.0.0.1"))]);
    test.update();
    let bad = pod("a", "nowhere");
    test.change(Resource::LocalPods, &bad);
    let update = test.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::KeptLastGood);
    assert_eq!(update.changes, []);
    // A list that is read again holds it too.
    test.list(Resource::LocalPods, &[bad.clone(), pod("b", "10.0.0.2")]);
    assert_eq!(test.changes(), ["+Pod b"]);
    // A later process knows the good one.
    let mut later = WatchCacheTest::remembering(test.cache.kept_objects());
    later.list_all(&[(Resource::LocalPods, bad.clone())]);
    assert_eq!(later.changes(), ["+Pod a"]);
    test.change(Resource::LocalPods, &pod("a", "10.0.0.1"));
    let update = test.update().unwrap();
    assert_eq!((update.changes, update.reports), (Vec::new(), Arc::default()));
    test.change(Resource::LocalPods, &bad);
    test.update();
    test.list(Resource::LocalPods, &[]);
    let update = test.update().unwrap();
    assert_eq!(*update.reports, []);
    assert_eq!(words(update), ["-Pod shop/a", "-Pod shop/b"]);
    // Without a good version, it is only reported.
    test.change(Resource::LocalPods, &bad);
    let update = test.update().unwrap();
    assert_eq!(update.reports[0].state, ReportState::Rejected);
    assert_eq!(update.changes, []);
    test.gone(Resource::LocalPods, "shop", "a");
    assert_eq!(*test.update().unwrap().reports, []);
}

#[test]
fn what_is_said_of_policies_is_made_again_only_when_it_is_another() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("pods", by_pod()))]);
    test.list(Resource::OtherPods, &[pod("a", "10.0.1.1")]);
    let first = test.update().unwrap().reports;
    assert_eq!(first.len(), 1);
    test.change(Resource::OtherPods, &pod("a", "10.0.1.2"));
    let same = test.update().unwrap().reports;
    assert!(Arc::ptr_eq(&same, &first), "a pod has changed, and no policy");
    test.change(POLICIES, &policy("more", by_pod()));
    assert_eq!(test.update().unwrap().reports.len(), 2);
}

#[test]
fn a_pod_that_was_bound_to_another_node_is_found_again_when_this_node_s_is_gone() {
    let mut test = WatchCacheTest::complete(&[(POLICIES, policy("pods", by_pod()))]);
    test.list(Resource::OtherPods, &[pod("a", "10.0.1.1")]);
    test.update();
    test.change(Resource::LocalPods, &pod("a", "10.0.0.1"));
    test.update();
    // What the other watch tells meanwhile does not count yet.
    test.change(Resource::OtherPods, &pod("a", "10.0.1.2"));
    let address = |update: Update| match &update.changes[..] {
        [ObjectChange::Apply(Object::Pod(pod))] => pod.addresses.as_slice()[0].to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(address(test.update().unwrap()), "10.0.0.1");
    test.gone(Resource::LocalPods, "shop", "a");
    assert_eq!(address(test.update().unwrap()), "10.0.1.2");
}

#[test]
fn of_another_cluster_nothing_is_told_before_its_pods_are() {
    let mut test = WatchCacheTest {
        cache: WatchCache::new(&WatchScope::OtherCluster("west".into()), Vec::new(), true),
        now: Instant::now(),
    };
    let awaited: Vec<Resource> = test.cache.awaited().collect();
    for resource in awaited.into_iter().filter(|it| *it != Resource::OtherPods) {
        test.list(resource, &[]);
    }
    assert_eq!(test.cache.update(test.now + 2 * PATIENCE), None);
    test.list(Resource::OtherPods, &[]);
    assert!(test.cache.update(test.now).is_some());
}
