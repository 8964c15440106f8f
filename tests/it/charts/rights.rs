//! Every right that the chart gives is needed: without it, what its role does fails.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    IMAGE, ROLES,
    helm::Helm,
    smoke::{Smoke, end_of_a_refused_one, smoke},
    verbs::{self, Right},
};
use crate::{
    cluster::{Cluster, PAUSE, shared},
    contract::rbac::{To, in_force},
};

/// Where one rule of a role stands: the namespace of its Role, or none for the `ClusterRole`, and its place in there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: Option<String>,
    name: String,
    index: usize,
    pub(super) rule: PolicyRule,
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_one_of_its_rights_a_role_fails() {
    let cluster = Cluster::start_own().await;
    cluster.install_crds().await;
    let home = cluster.namespace("rights").await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    helm.run(&["install", "ostler", "charts/ostler", "--namespace", &home, "--set", IMAGE]).await.succeeded();
    let survivors = ROLES.map(|role| survivors(&cluster, &home, role));
    let survivors = futures::future::join_all(survivors).await.concat();
    assert!(survivors.is_empty(), "rights that nobody needs: {survivors:#?}");
}

/// With `watchNamespace`, most rights stand in a Role. Each role has a release of its own, so that they do not meet.
#[tokio::test(flavor = "multi_thread")]
async fn in_one_namespace_every_right_of_a_role_is_needed_too() {
    let cluster = shared().await;
    cluster.install_crds().await;
    let unneeded = ROLES.map(async |role| {
        let (home, watched) = (cluster.namespace("rights").await, cluster.namespace("watched").await);
        let one = format!("watchNamespace={watched}");
        let helm = Helm::of(cluster.kubeconfig()).await;
        let release = ["install", "ostler", "charts/ostler", "--namespace", &home, "--set", IMAGE];
        helm.run(&[&release[..], &["--set", &one]].concat()).await.succeeded();
        let stage = Smoke::new(cluster, &home, role).await.only_in(&watched);
        let places = places(&cluster.client().await, &[&home, &watched], role).await;
        assert!(places.iter().any(|place| place.namespace.as_ref() == Some(&watched)), "{role} has no Role");
        let since = stage.now();
        let whole = smoke(&stage).await;
        assert_eq!(whole, Ok(()), "{role}, in one namespace");
        let unasked = unasked(&stage, &places, since).await;
        let unneeded = unasked.iter().map(Right::words).filter(|right| !CHECKED_INSIDE.contains(&&**right));
        unneeded.map(|right| format!("{role}: {right}")).collect::<Vec<_>>()
    });
    let unneeded = futures::future::join_all(unneeded).await.concat();
    assert!(unneeded.is_empty(), "rights that nobody needs in one namespace: {unneeded:#?}");
}

/// How long the end of a watch may take to be written down.
const ENDS: Duration = Duration::from_secs(20);

/// What the API server checks without a request of its own. Without `watchNamespace` it is taken away and tried.
const CHECKED_INSIDE: [&str; 1] = ["create /pods/exec *"];

/// The rights that a smoke test did not ask for. That a watch was asked for is written down when it has ended.
async fn unasked(stage: &Smoke<'_>, places: &[Place], since: u64) -> BTreeSet<Right> {
    let begun = Instant::now();
    loop {
        let unasked = verbs::unasked(&all(places), &stage.asked(since).await);
        let settled = unasked.iter().all(|right| CHECKED_INSIDE.contains(&&*right.words()));
        if settled || begun.elapsed() > ENDS {
            return unasked;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn all(places: &[Place]) -> Vec<Right> {
    places.iter().flat_map(verbs::rights).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_may_not_read_what_it_needs_ends_when_it_is_asked_to() {
    let cluster = shared().await;
    cluster.install_crds().await;
    let home = cluster.namespace("rights").await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    helm.run(&["install", "ostler", "charts/ostler", "--namespace", &home, "--set", IMAGE]).await.succeeded();
    let admin = cluster.client().await;
    // a cache of many, those that controllers stand on, and what is looked at after them
    let refused = [("recorder", "configmaps"), ("recorder", "sessions")];
    for (role, resource) in refused.into_iter().chain([("controller", "sessions"), ("controller", "pods")]) {
        let stage = Smoke::new(cluster, &home, role).await;
        let is_it = |place: &&Place| {
            place.rule.resources.as_ref().is_some_and(|all| all.contains(&resource.to_owned()))
        };
        let places = places(&admin, &[&home], role).await;
        let place = places.iter().find(is_it).unwrap();
        without(&admin, &stage.user, place, true).await;
        let ended = end_of_a_refused_one(&stage).await;
        assert_eq!(ended.code, Some(0), "{role} without {resource}: {}", ended.text);
        without(&admin, &stage.user, place, false).await;
    }
}

/// The rules of a role without which all goes well.
async fn survivors(cluster: &Cluster, home: &str, role: &str) -> Vec<String> {
    let admin = cluster.client().await;
    let stage = Smoke::new(cluster, home, role).await;
    let places = places(&admin, &[home], role).await;
    assert!(!places.is_empty(), "{role} has no rights");
    let since = stage.now();
    let whole = smoke(&stage).await;
    assert_eq!(whole, Ok(()), "{role}, with all its rights");
    let unasked = unasked(&stage, &places, since).await;
    println!("{role}: {} rights, {} of them asked for inside of others", all(&places).len(), unasked.len());
    let mut survivors = Vec::new();
    for right in unasked {
        if let Some(survivor) = without_verb(&stage, &admin, &places, &right).await {
            survivors.push(survivor);
        }
    }
    for place in &places {
        without(&admin, &stage.user, place, true).await;
        match smoke(&stage).await {
            Ok(()) => survivors.push(format!("{role}: {:?}", place.rule)),
            Err(why) => println!("{role} without {:?} {:?}: {why}", place.rule.verbs, place.rule.resources),
        }
        without(&admin, &stage.user, place, false).await;
    }
    let again = smoke(&stage).await;
    assert_eq!(again, Ok(()), "{role}, with all its rights again");
    survivors
}

/// Tries without one right; says which, if all goes well.
async fn without_verb(stage: &Smoke<'_>, admin: &Client, places: &[Place], right: &Right) -> Option<String> {
    let place = places.iter().find(|place| verbs::rights(place).contains(right)).unwrap();
    if !CHECKED_INSIDE.contains(&&*right.words()) {
        // every other request is in the audit log
        return Some(format!("{}: {}", stage.user, right.words()));
    }
    let mut less = place.clone();
    less.rule.verbs.retain(|verb| *verb != right.verb);
    replace(admin, place, &less.rule).await;
    let only = PolicyRule { verbs: vec![right.verb.clone()], ..place.rule.clone() };
    in_force(false, admin, To::User(&stage.user), place.namespace.as_deref(), &only).await;
    let outcome = smoke(stage).await;
    replace(admin, &less, &place.rule).await;
    in_force(true, admin, To::User(&stage.user), place.namespace.as_deref(), &only).await;
    println!("{} without {}: {outcome:?}", stage.user, right.words());
    outcome.is_ok().then(|| format!("{}: {}", stage.user, right.words()))
}

/// Puts another rule in the place of that one.
async fn replace(admin: &Client, place: &Place, rule: &PolicyRule) {
    let path = format!("/rules/{}", place.index);
    let patch = json!([{"op": "test", "path": path, "value": place.rule}, {"op": "replace", "path": path, "value": rule}]);
    patch_role(admin, place, patch).await;
}

async fn patch_role(admin: &Client, place: &Place, patch: Value) {
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
    let params = PatchParams::default();
    if let Some(namespace) = &place.namespace {
        let api: Api<Role> = Api::namespaced(admin.clone(), namespace);
        api.patch(&place.name, &params, &patch).await.unwrap();
    } else {
        let api: Api<ClusterRole> = Api::all(admin.clone());
        api.patch(&place.name, &params, &patch).await.unwrap();
    }
}

/// The rules of a role: of the whole cluster, and in these namespaces, the first of which is the release's.
async fn places(admin: &Client, namespaces: &[&str], role: &str) -> Vec<Place> {
    let params = ListParams::default().labels(&format!("app.kubernetes.io/component={role}"));
    let of = |namespace: Option<&str>, name: Option<String>, rules: Option<Vec<PolicyRule>>| {
        let (namespace, name) = (namespace.map(str::to_owned), name.unwrap());
        let rules = rules.unwrap_or_default().into_iter().enumerate();
        let place = |(index, rule)| Place { namespace: namespace.clone(), name: name.clone(), index, rule };
        rules.map(place).collect::<Vec<_>>()
    };
    let wide = Api::<ClusterRole>::all(admin.clone()).list(&params).await.unwrap();
    // the cluster may have other releases
    let prefix = format!("{}:", namespaces[0]);
    let ours = |r: &ClusterRole| r.metadata.name.as_ref().is_some_and(|n| n.starts_with(&prefix));
    let wide = wide.into_iter().filter(ours).flat_map(|r| of(None, r.metadata.name, r.rules));
    let mut places: Vec<Place> = wide.collect();
    for namespace in namespaces {
        let own = Api::<Role>::namespaced(admin.clone(), namespace).list(&params).await.unwrap();
        places.extend(own.into_iter().flat_map(|r| of(Some(namespace), r.metadata.name, r.rules)));
    }
    places
}

/// Takes a rule out of its role, or puts it back, and waits until the authorizer knows.
async fn without(admin: &Client, user: &str, place: &Place, out: bool) {
    let path = format!("/rules/{}", place.index);
    let patch = if out {
        json!([{"op": "test", "path": path, "value": place.rule}, {"op": "remove", "path": path}])
    } else {
        json!([{"op": "add", "path": path, "value": place.rule}])
    };
    patch_role(admin, place, patch).await;
    in_force(!out, admin, To::User(user), place.namespace.as_deref(), &place.rule).await;
}
