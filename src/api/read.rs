//! The state of every kind, read only.

use axum::{
    Json,
    extract::{Path, Query, State as Shared},
    http::HeaderMap,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Problem, State, guard, selector::Selector};
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::{Namespace, ObjectName},
    ports::access::{self, Audience},
    telemetry::Chain,
};

/// Objects in a page when none are asked for, and the most that may be.
const PAGE: (usize, usize) = (100, 500);

/// What of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Labels that objects must have: `a=b,c!=d,e,!f`.
    label_selector: Option<String>,
    /// Most objects in the answer, 1 to 500; default 100.
    limit: Option<usize>,
    /// Where the page before ended.
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// A page of objects, ordered by namespace and name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The objects.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    /// Give this as `continue` to get the next page; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_: Option<String>,
}

/// One object and how to see it elsewhere.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct One {
    /// The object.
    #[schema(value_type = Object)]
    object: Value,
    /// The same as YAML.
    yaml: String,
    /// Commands that show it.
    commands: Commands,
}

/// Commands that show an object.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Commands {
    ostler: String,
    kubectl: String,
}

/// Lists a kind in all namespaces.
#[utoipa::path(
    get,
    path = "/api/v1/{kind}",
    params(("kind" = String, Path, description = "repositories, sessions, runs, policies or agents"), Wanted),
    security(("token" = [])),
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn list_all(
    Shared(state): Shared<State>,
    Path(kind): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Page>, Problem> {
    page(&state, &headers, &kind, None, &wanted).await
}

/// Lists a kind in one namespace.
#[utoipa::path(
    get,
    path = "/api/v1/{kind}/{namespace}",
    params(
        ("kind" = String, Path, description = "repositories, sessions, runs, policies or agents"),
        ("namespace" = String, Path, description = "the namespace"),
        Wanted
    ),
    security(("token" = [])),
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn list(
    Shared(state): Shared<State>,
    Path((kind, namespace)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Page>, Problem> {
    page(&state, &headers, &kind, Some(&namespace), &wanted).await
}

/// Shows one object.
#[utoipa::path(
    get,
    path = "/api/v1/{kind}/{namespace}/{name}",
    params(
        ("kind" = String, Path, description = "repositories, sessions, runs, policies or agents"),
        ("namespace" = String, Path, description = "the namespace"),
        ("name" = String, Path, description = "the object")
    ),
    security(("token" = [])),
    responses((status = 200, body = One), (status = 401, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn one(
    Shared(state): Shared<State>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Json<One>, Problem> {
    let who = guard::authenticate(state.access.as_ref(), &headers, Audience::Ostler).await?;
    let kind = kind_of(&kind)?;
    let namespace: Namespace = namespace.parse().map_err(|_| Problem::not_found())?;
    let name: ObjectName = name.parse().map_err(|_| Problem::not_found())?;
    let resource = kind.typed_names()[0];
    let request = access::Request { verb: "get", resource, namespace: Some(&namespace), name: Some(&name) };
    guard::authorize(state.access.as_ref(), (&state.audit, (state.clock)()), &who, &request).await?;
    let id = ObjectId::new(kind, namespace, name);
    let object = state.store.get(&id).await.map_err(|error| store(&error))?.ok_or_else(Problem::not_found)?;
    let object = shown(object);
    let yaml = serde_saphyr::to_string(&object).map_err(|_| Problem::internal())?;
    let singular = kind.typed_names()[1];
    let commands = Commands {
        ostler: format!("ostler get {singular} {} --namespace {} --output yaml", id.name, id.namespace),
        kubectl: format!(
            "kubectl get {resource}.ostler.dev {} --namespace {} --output yaml",
            id.name, id.namespace
        ),
    };
    Ok(Json(One { object, yaml, commands }))
}

async fn page(
    state: &State,
    headers: &HeaderMap,
    kind: &str,
    namespace: Option<&str>,
    wanted: &Wanted,
) -> Result<Json<Page>, Problem> {
    let who = guard::authenticate(state.access.as_ref(), headers, Audience::Ostler).await?;
    let kind = kind_of(kind)?;
    let namespace: Option<Namespace> =
        namespace.map(str::parse).transpose().map_err(|_| Problem::not_found())?;
    let request = access::Request {
        verb: "list",
        resource: kind.typed_names()[0],
        namespace: namespace.as_ref(),
        name: None,
    };
    guard::authorize(state.access.as_ref(), (&state.audit, (state.clock)()), &who, &request).await?;

    let selector = wanted.label_selector.as_deref().unwrap_or_default();
    let selector =
        Selector::parse(selector).map_err(|why| Problem::invalid(format!("labelSelector: {why}")))?;
    let limit = wanted.limit.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        return Err(Problem::invalid(format!("limit: it must be 1 to {}", PAGE.1)));
    }
    let after = wanted.continue_.as_deref().map(position).transpose()?;
    let all = state.store.list(kind, namespace.as_ref()).await.map_err(|error| store(&error))?;
    let place = |object: &Object| (object.namespace().unwrap_or_default(), object.name_any());
    let mut rest = all
        .into_iter()
        .filter(|object| after.as_ref().is_none_or(|after| place(object) > *after))
        .filter(|object| selector.matches(object.labels()))
        .peekable();
    let items: Vec<Object> = rest.by_ref().take(limit).collect();
    let last = items.last().map(place).filter(|_| rest.peek().is_some());
    let continue_ = last.map(|(namespace, name)| URL_SAFE_NO_PAD.encode(format!("{namespace}/{name}")));
    Ok(Json(Page { items: items.into_iter().map(shown).collect(), continue_ }))
}

/// The words of the API are those of its pages, not the resources' plurals.
fn kind_of(word: &str) -> Result<Kind, Problem> {
    match word {
        "repositories" => Ok(Kind::ConfigRepository),
        "sessions" => Ok(Kind::Session),
        "runs" => Ok(Kind::HarnessRun),
        "policies" => Ok(Kind::EgressPolicy),
        "agents" => Ok(Kind::Agent),
        _ => Err(Problem::not_found()),
    }
}

fn position(token: &str) -> Result<(String, String), Problem> {
    let invalid = || Problem::invalid("continue: it is not one of ours; begin anew without it");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
    Ok((namespace.to_owned(), name.to_owned()))
}

/// Without the book-keeping of field owners, which no reader wants.
fn shown(mut object: Object) -> Value {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).unwrap_or_default()
}

fn store(error: &crate::ports::objects::Error) -> Problem {
    tracing::warn!(error = %Chain(error), "the store could not be read");
    Problem::unavailable()
}
