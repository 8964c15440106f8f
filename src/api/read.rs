//! The state of every kind, read only.

use axum::{
    Extension, Json,
    extract::{Path, Query, State as Shared},
    http::HeaderMap,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    Problem, State, guard,
    paging::{List, Places},
};
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::{Namespace, ObjectName},
    ports::{
        access::{self, Audience},
        objects::{self, Labels, Part},
    },
    telemetry::Chain,
};

/// Objects in a page when none are asked for, and the most that may be.
const PAGE: (u32, u32) = (100, 500);

/// What of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Labels that objects must have: `a=b,c!=d,e,!f`.
    label_selector: Option<String>,
    /// Most objects in the answer, 1 to 500; default 100.
    limit: Option<u32>,
    /// The `continue` of the page before, with the same path and `labelSelector`.
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// A page of objects, one namespace after another, in each by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The objects; there may be fewer than `limit`, even none, and yet a next page.
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
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 410, body = Problem, description = "`continue` is too old: begin anew"), (status = 429, body = Problem, description = "too many lists at once: see Retry-After"))
)]
pub(super) async fn list_all(
    Shared(state): Shared<State>,
    Path(kind): Path<String>,
    Query(wanted): Query<Wanted>,
    Extension(places): Extension<Places>,
    headers: HeaderMap,
) -> Result<Json<Page>, Problem> {
    page((&state, &places), &headers, &kind, None, &wanted).await
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
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 410, body = Problem, description = "`continue` is too old: begin anew"), (status = 429, body = Problem, description = "too many lists at once: see Retry-After"))
)]
pub(super) async fn list(
    Shared(state): Shared<State>,
    Path((kind, namespace)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
    Extension(places): Extension<Places>,
    headers: HeaderMap,
) -> Result<Json<Page>, Problem> {
    page((&state, &places), &headers, &kind, Some(&namespace), &wanted).await
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
    (state, places): (&State, &Places),
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

    let labels = wanted.label_selector.as_deref().unwrap_or_default();
    let labels: Labels = labels.parse().map_err(|why| Problem::invalid(format!("labelSelector: {why}")))?;
    let limit = wanted.limit.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        return Err(Problem::invalid(format!("limit: it must be 1 to {}", PAGE.1)));
    }
    let list = List { kind, namespace: namespace.as_ref(), labels: &labels };
    let after = wanted.continue_.as_deref().map(|token| list.words(token)).transpose()?;
    let part = Part { labels: labels.clone(), limit, after };
    let _place = places.take()?;
    let page = state.store.page(kind, namespace.as_ref(), &part).await.map_err(|error| store(&error))?;
    let continue_ = page.next.map(|words| list.token(&words));
    Ok(Json(Page { items: page.objects.into_iter().map(shown).collect(), continue_ }))
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

/// Without the book-keeping of field owners, which no reader wants.
fn shown(mut object: Object) -> Value {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).unwrap_or_default()
}

fn store(error: &objects::Error) -> Problem {
    match error {
        objects::Error::Expired => return Problem::expired(),
        objects::Error::NoSuchPage => return Problem::no_such_page(),
        _ => {}
    }
    tracing::warn!(error = %Chain(error), "the store could not be read");
    Problem::unavailable()
}
