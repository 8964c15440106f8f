//! A pod from its creation to its removal.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, ServiceAccount},
    networking::v1::NetworkPolicy,
    node::v1::RuntimeClass,
};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use ostler::{
    kinds::{Phase, Reason},
    kubernetes::network::ProxySelector,
    ports::workloads::{Error, SecretKey, Stage, StopReason},
};

use super::{
    super::proxy::{Proxy, Wrong},
    *,
};

/// True: `jq` says so of the object.
fn jq(object: &impl serde::Serialize, filter: &str) -> bool {
    let mut jq = Command::new("jq")
        .args(["-e", filter])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("jq is one of the programs that the tests need");
    let text = serde_json::to_vec(object).unwrap();
    jq.stdin.take().unwrap().write_all(&text).unwrap();
    jq.wait().unwrap().success()
}

const NO_SECRET: &str = r#"[.. | objects | keys[] | select(. == "secretKeyRef" or . == "secretRef" or . == "secretName" or . == "secret")] == []"#;
const NO_TOKEN: &str = r#"(.spec.containers[] | select(.name == "agent") | [.volumeMounts[].name]) - ["bin", "shared", "workspace", "home", "tmp"] == []"#;

#[tokio::test]
async fn a_pod_is_restricted_and_names_no_secret() {
    let ground = Ground::new("restricted").await;
    let key = |name: &str| SecretKey { secret: name.parse().unwrap(), key: "k".to_owned() };
    let mut spec = ground.spec();
    spec.secret_env = vec![("MODEL_KEY".to_owned(), key("model"))];
    let missing = ground.workloads.ensure(&spec).await.unwrap_err();
    assert!(matches!(missing, Error::Refused { reason: Reason::SecretNotFound, .. }), "{missing:?}");
    assert_eq!(ground.count().await, 0, "nothing is made before its secrets are there");

    let secret = json!({"metadata": {"name": "model", "annotations": {"ostler.dev/use": "env"}},
        "stringData": {"k": "hunter2"}});
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(ground.client.clone(), ground.namespace.as_str());
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let place = ground.workloads.ensure(&spec).await.unwrap();
    assert_eq!((place.stage, place.begun, place.confirmed), (Stage::Created, false, false));
    let pod = ground.pods().get(&place.name).await.unwrap();
    assert_eq!(pod.uid().as_deref(), Some(place.uid.as_str()));
    assert!(jq(&pod, NO_SECRET) && jq(&pod, NO_TOKEN), "{pod:?}");
    assert!(
        !jq(&json!({"spec": {"env": [{"valueFrom": {"secretKeyRef": {}}}]}}), NO_SECRET),
        "jq would tell"
    );
    assert!(!serde_json::to_string(&pod).unwrap().contains("hunter2"));
    assert!(jq(&pod, ".spec.automountServiceAccountToken == false and .spec.enableServiceLinks == false"));
    assert!(jq(
        &pod,
        r#".metadata.ownerReferences[0].kind == "HarnessRun" and .spec.restartPolicy == "Never""#
    ));
    assert!(jq(
        &pod,
        ".metadata.labels | keys == [\"ostler.dev/role\", \"ostler.dev/run\", \"ostler.dev/run-uid\"]"
    ));
}

#[tokio::test]
async fn one_pod_for_a_run_whoever_asks_and_whatever_the_answer() {
    let ground = Ground::new("once").await;
    let spec = ground.spec();
    let other = adapter(&ground.client, &ground.namespace).await;
    let (one, two) = tokio::join!(ground.workloads.ensure(&spec), other.ensure(&spec));
    assert_eq!(one.unwrap().uid, two.unwrap().uid);
    assert_eq!(ground.count().await, 1);

    let proxy = Proxy::start(ground.cluster.client().await).await;
    let target = Target { kubeconfig: Some(proxy.kubeconfig()), context: None };
    let behind = adapter(&connect(&target).await.unwrap(), &ground.namespace).await;
    let asked = AtomicUsize::new(0);
    eventually("its list and its watch are past the proxy", async || {
        let now = proxy.take_requests();
        (asked.fetch_add(now, Ordering::Relaxed) + now >= 2).then_some(())
    })
    .await;
    let spec = ground.spec();
    proxy.next([Wrong::ErrorAfter]);
    let error = behind.ensure(&spec).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let place = behind.ensure(&spec).await.unwrap();
    assert_eq!(ground.count().await, 2, "it was made in spite of the error");
    assert_eq!(ground.pods().get(&place.name).await.unwrap().uid().as_deref(), Some(place.uid.as_str()));
}

#[tokio::test]
async fn a_pod_deleted_by_hand_stays_visible_until_it_is_confirmed() {
    let ground = Ground::new("visible").await;
    let spec = ground.spec();
    let place = ground.workloads.ensure(&spec).await.unwrap();
    ground.pods().delete(&place.name, &DeleteParams::default()).await.unwrap();
    let vanished = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.stage == Stage::Vanished);
    let seen = ground.sees(&spec, "the deletion", vanished).await.unwrap();
    let trouble = seen.trouble.unwrap();
    assert_eq!((trouble.reason, trouble.ends), (Reason::PlaceDeleted, Some(Phase::Failed)));
    assert!(ground.workloads.find(&spec.run).await.unwrap().is_some());
    assert_eq!(ground.workloads.ensure(&spec).await.unwrap().uid, place.uid, "it is not made again");

    ground.workloads.confirm(&spec.run.uid).await.unwrap();
    ground.sees(&spec, "its end", Option::is_none).await;
    assert!(ground.workloads.find(&spec.run).await.unwrap().is_none());
    assert!(matches!(ground.workloads.confirm(&spec.run.uid).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn confirming_and_removing_are_few_writes() {
    let ground = Ground::new("writes").await;
    let spec = ground.spec();
    let mut changes = ground.workloads.changes();
    let place = ground.workloads.ensure(&spec).await.unwrap();
    assert_eq!(changes.next().await.unwrap(), spec.run);
    for _ in 0..3 {
        ground.workloads.confirm(&spec.run.uid).await.unwrap();
    }
    assert!(ground.workloads.observe(&spec.run.uid).await.unwrap().unwrap().confirmed);
    assert!(ground.pods().get(&place.name).await.unwrap().finalizers().is_empty());
    for _ in 0..3 {
        ground.workloads.remove(&spec.run.uid).await.unwrap();
        assert!(ground.workloads.observe(&spec.run.uid).await.unwrap().is_none());
        assert!(ground.workloads.list().await.unwrap().is_empty());
    }
    eventually("the pod is gone", async || {
        ground.pods().get_opt(&place.name).await.unwrap().is_none().then_some(())
    })
    .await;

    // a place that nobody confirmed goes, too
    let spec = ground.spec();
    let second = ground.workloads.ensure(&spec).await.unwrap();
    ground.workloads.remove(&spec.run.uid).await.unwrap();
    eventually("the other, too", async || {
        ground.pods().get_opt(&second.name).await.unwrap().is_none().then_some(())
    })
    .await;
    let ours = |name: &str| {
        let lines = ground.cluster.audit();
        let of = lines.iter().filter(|line| line.is_write() && line.object_ref.name == name);
        of.map(|line| line.verb.clone()).collect::<Vec<_>>()
    };
    let told = eventually("the audit log has it all", async || {
        Some(ours(&place.name)).filter(|verbs| verbs.iter().any(|verb| verb == "delete"))
    });
    // a create has no name in its line
    let told: Vec<_> = told.await.into_iter().filter(|verb| verb != "create").collect();
    assert_eq!(told, ["patch", "delete"]);
}

#[tokio::test]
async fn a_run_that_was_made_again_within_a_second_has_a_pod_of_its_own() {
    let ground = Ground::new("again").await;
    let first = ground.spec();
    let mut second = ground.spec();
    second.run.name = first.run.name.clone();
    let (old, new) =
        (ground.workloads.ensure(&first).await.unwrap(), ground.workloads.ensure(&second).await.unwrap());
    assert_ne!((&old.uid, &old.name), (&new.uid, &new.name));
    ground.workloads.remove(&first.run.uid).await.unwrap();
    assert_eq!(ground.workloads.observe(&second.run.uid).await.unwrap().unwrap().uid, new.uid);
}

#[tokio::test]
async fn whoever_starts_later_knows_what_is_there() {
    let ground = Ground::new("later").await;
    let spec = ground.spec();
    let place = ground.workloads.ensure(&spec).await.unwrap();
    let later = adapter(&ground.client, &ground.namespace).await;
    assert_eq!(later.observe(&spec.run.uid).await.unwrap().unwrap().uid, place.uid);
    later.confirm(&spec.run.uid).await.unwrap();
    let confirmed = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.confirmed);
    ground.sees(&spec, "what another did", confirmed).await;
    // without a kubelet nobody answers, and that is said
    ground.says(&place.name, running()).await;
    let begun = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.begun);
    ground.sees(&spec, "the sidecar's start", begun).await;
    let error = ground.workloads.stop(&spec.run.uid, StopReason::StopRequested).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(matches!(ground.workloads.open(&spec.run.uid).await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn wishes_are_stored_and_a_session_has_one_claim() {
    let ground = Ground::new("wishes").await;
    let classes: Api<RuntimeClass> = Api::all(ground.client.clone());
    let class = RuntimeClass {
        metadata: ObjectMeta { name: Some(format!("class-{}", ground.namespace)), ..ObjectMeta::default() },
        handler: "runsc".to_owned(),
        ..RuntimeClass::default()
    };
    classes.create(&PostParams::default(), &class).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(ground.client.clone(), ground.namespace.as_str());
    let account = json!({"metadata": {"name": "coder"}});
    accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();

    let session = ground.spec().run.uid;
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut spec = ground.spec();
        spec.persistent_workspace = Some(session.clone());
        spec.pod.runtime_class = Some(class.name_any());
        spec.pod.service_account = Some("coder".to_owned());
        spec.pod.node_selector = [("pool".to_owned(), "agents".to_owned())].into();
        spec.pod.session = Some("payments".parse().unwrap());
        // the class may not be known to the API server's own cache yet
        let place =
            eventually("the pod with its class", async || ground.workloads.ensure(&spec).await.ok()).await;
        made.push(serde_json::to_value(ground.pods().get(&place.name).await.unwrap()).unwrap());
    }
    let spec = &made[0]["spec"];
    assert_eq!(spec["runtimeClassName"], class.name_any().as_str());
    assert_eq!(
        (&spec["serviceAccountName"], &spec["nodeSelector"]["pool"]),
        (&json!("coder"), &json!("agents"))
    );
    assert_eq!(made[0]["metadata"]["labels"]["ostler.dev/session"], "payments");
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ground.client.clone(), ground.namespace.as_str());
    assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 1);
    ground.workloads.remove_workspace(&session).await.unwrap();
    let deleted = claims.list(&ListParams::default()).await.unwrap();
    assert!(
        deleted.iter().all(|claim| claim.metadata.deletion_timestamp.is_some()),
        "it waits for its pods only"
    );
    classes.delete(&class.name_any(), &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn the_way_out_is_closed_before_the_first_pod() {
    let ground = Ground::new("closed").await;
    let proxy = ProxySelector {
        namespace: ground.namespace.clone(),
        labels: [("app".to_owned(), "proxy".to_owned())].into(),
        port: 8443,
    };
    let settings = PodSettings { network: Some(proxy), ..settings(&ground.namespace) };
    let secrets = Arc::new(KubeSecrets::new(ground.client.clone()));
    let adapter = KubeWorkloads::start(ground.client.clone(), settings, secrets).await.unwrap();
    let place = adapter.ensure(&ground.spec()).await.unwrap();
    let policies: Api<NetworkPolicy> = Api::namespaced(ground.client.clone(), ground.namespace.as_str());
    let policies = policies.list(&ListParams::default()).await.unwrap().items;
    let [policy] = &policies[..] else { panic!("{policies:?}") };
    let selected = policy.spec.as_ref().unwrap().pod_selector.clone().unwrap_or_default();
    let pod = ground.pods().get(&place.name).await.unwrap();
    let labels = selected.match_labels.unwrap();
    assert!(!labels.is_empty() && labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
    assert!(policy.creation_timestamp() <= pod.creation_timestamp());
}
