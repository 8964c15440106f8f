//! The suite on a real API server: service accounts hold tokens, RBAC says what they may do.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::PolicyRule,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use ostler::kubernetes::access::KubeAccess;

use super::*;
use crate::{
    cluster,
    contract::rbac::{self, To},
};

struct Accounts {
    access: KubeAccess,
    admin: Client,
    namespace: Namespace,
    group: String,
}

fn name(holder: Holder) -> &'static str {
    match holder {
        Holder::Reader => "the-reader",
        Holder::Admin => "the-admin",
    }
}

/// The reader has its rights as one of a group, the administrator by name.
fn rights(holder: Holder) -> PolicyRule {
    match holder {
        Holder::Reader => rbac::rule("ostler.dev", "*", &["get", "list", "watch"]),
        Holder::Admin => rbac::rule("ostler.dev", "*", &["*"]),
    }
}

impl Accounts {
    /// A namespace, and an ostler that may review and nothing else.
    async fn new() -> Self {
        let cluster = cluster::shared().await;
        let admin = cluster.client().await;
        let namespace = cluster.namespace("access").await;
        let ostler = format!("ostler-of-{namespace}");
        let review = rbac::rule("authentication.k8s.io", "tokenreviews", &["create"]);
        rbac::bind(&admin, "system:auth-delegator", &ostler, To::User(&ostler), review).await;
        let access = KubeAccess::new(cluster.user(&ostler, &[]).await);
        let group = format!("system:serviceaccounts:{namespace}");
        Self { access, admin, namespace: namespace.parse().unwrap(), group }
    }

    fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.admin.clone(), self.namespace.as_str())
    }

    fn user(&self, name: &str) -> String {
        format!("system:serviceaccount:{}:{name}", self.namespace)
    }

    async fn make(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        self.accounts().create(&PostParams::default(), &account).await.unwrap();
    }

    async fn token_for(&self, name: &str, audiences: &[&str]) -> SecretString {
        let spec = TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer =
            self.accounts().create_token_request(name, &PostParams::default(), &request).await.unwrap();
        SecretString::from(answer.status.unwrap().token)
    }

    /// Whom a holder's rights are given to.
    fn to<'a>(&'a self, holder: Holder, user: &'a str) -> To<'a> {
        if holder == Holder::Reader { To::Group(&self.group) } else { To::User(user) }
    }
}

#[async_trait]
impl Ground for Accounts {
    fn access(&self) -> &dyn Access {
        &self.access
    }

    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    async fn token(&self, holder: Holder) -> SecretString {
        let user = self.user(name(holder));
        self.make(name(holder)).await;
        let to = self.to(holder, &user);
        rbac::grant(&self.admin, self.namespace.as_str(), name(holder), to, rights(holder)).await;
        self.token_for(name(holder), &["ostler"]).await
    }

    async fn revoke(&self, holder: Holder) {
        let user = self.user(name(holder));
        let to = self.to(holder, &user);
        let token = self.token_for(name(holder), &["ostler"]).await;
        // The API server keeps for some seconds what it knows of a token: of this one it learns last, so that when it is
        // forgotten, all are.
        assert!(self.access.authenticate(&token, Audience::Ostler).await.is_ok());
        rbac::take_back(&self.admin, self.namespace.as_str(), name(holder), to, rights(holder)).await;
        self.accounts().delete(name(holder), &DeleteParams::default()).await.unwrap();
        rbac::eventually("the tokens of the account are unknown", || async {
            self.access.authenticate(&token, Audience::Ostler).await.is_err()
        })
        .await;
    }
}

suite!(Accounts::new());

#[tokio::test]
async fn a_token_for_somebody_else_is_unknown_here() {
    let ground = Accounts::new().await;
    ground.make("tool").await;
    for (audiences, good) in [
        (&["ostler"][..], true),
        (&["elsewhere", "ostler"], true),
        (&["ostler-result"], false),
        (&["ostlers"], false),
        (&[], false),
    ] {
        let token = ground.token_for("tool", audiences).await;
        let decided = ground.access.authenticate(&token, Audience::Ostler).await;
        assert_eq!(decided.is_ok(), good, "{audiences:?}: {decided:?}");
        assert!(good || matches!(decided, Err(Error::Unauthenticated)), "{audiences:?}: {decided:?}");
        let of_run = ground.access.authenticate(&token, Audience::Result).await;
        assert!(matches!(of_run, Err(Error::Unauthenticated)), "{audiences:?}: no pod, no run: {of_run:?}");
    }
}

#[tokio::test]
async fn rights_end_at_their_namespace_and_name() {
    let ground = Accounts::new().await;
    ground.make("tool").await;
    let token = ground.token_for("tool", &["ostler"]).await;
    let who = ground.access.authenticate(&token, Audience::Ostler).await.unwrap();
    let user = ground.user("tool");
    let mut rule = rbac::rule("ostler.dev", "harnessruns/log", &["get"]);
    rule.resource_names = Some(vec!["a".to_owned()]);
    rbac::grant(&ground.admin, ground.namespace.as_str(), "tool", To::User(&user), rule).await;
    let (here, elsewhere) = (ground.namespace(), "elsewhere".parse().unwrap());
    let (a, b): (ObjectName, ObjectName) = ("a".parse().unwrap(), "b".parse().unwrap());
    for (resource, namespace, name, allowed) in [
        ("harnessruns/log", Some(&here), Some(&a), true),
        ("harnessruns/log", Some(&here), Some(&b), false),
        ("harnessruns/log", Some(&here), None, false),
        ("harnessruns/log", Some(&elsewhere), Some(&a), false),
        ("harnessruns/log", None, Some(&a), false),
        ("harnessruns", Some(&here), Some(&a), false),
        ("sessions/log", Some(&here), Some(&a), false),
    ] {
        let request = Request { verb: "get", resource, namespace, name };
        assert_eq!(ground.access.authorize(&who, &request).await.unwrap(), allowed, "{request:?}");
    }
}

#[tokio::test]
async fn rights_everywhere_are_rights_in_each_namespace() {
    let ground = Accounts::new().await;
    ground.make("tool").await;
    let user = ground.user("tool");
    let example = rbac::rule("ostler.dev", "sessions", &["list"]);
    rbac::bind(&ground.admin, "cluster-admin", &user, To::User(&user), example).await;
    let who = Identity::User(ostler::ports::access::User::named(user));
    for namespace in [None, Some(&ground.namespace())] {
        let request = Request { verb: "list", resource: "sessions", namespace, name: None };
        assert!(ground.access.authorize(&who, &request).await.unwrap(), "{request:?}");
    }
}

#[tokio::test]
async fn an_ostler_that_may_not_review_decides_nothing() {
    let ground = Accounts::new().await;
    let token = ground.token(Holder::Admin).await;
    let access = KubeAccess::new(cluster::shared().await.user("nobody", &[]).await);
    let decided = access.authenticate(&token, Audience::Ostler).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
    let who = who(&ground, Holder::Reader).await;
    let request = Request { verb: "list", resource: "sessions", namespace: None, name: None };
    let decided = access.authorize(&who, &request).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
}
