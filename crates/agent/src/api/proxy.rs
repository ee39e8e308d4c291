//! `/v1/nodes/{node}/…`: the same request, on that node.
//!
//! One hop at most: what is forwarded is never forwarded again, so two nodes cannot send a request in circles.

use super::backend::{Backend, Caller};
use super::reply::{problem_response, raw};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use axum::response::Response;
use model::NodeName;
use model::api::{Code, PACKAGE_MAX, Problem};
use std::sync::Arc;
use tower::ServiceExt as _;

/// Where forwarded requests may go.
pub(super) struct Target<B> {
    pub backend: Arc<B>,
    pub local: Router,
}

impl<B> Clone for Target<B> {
    fn clone(&self) -> Self {
        Self { backend: Arc::clone(&self.backend), local: self.local.clone() }
    }
}

pub(super) async fn forward<B: Backend>(
    State(target): State<Target<B>>,
    Path((node, _)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(path) = beyond_node(&parts.uri) else {
        return problem_response(&Problem::new(Code::Invalid, "cannot forward", "the path is not a path"));
    };
    let node = match NodeName::new(&node) {
        Ok(node) => node,
        Err(error) => {
            return problem_response(
                &Problem::new(Code::Invalid, "no node can have this name", error.to_string())
                    .with_help("stead cluster state"),
            );
        }
    };
    if target.backend.local_node().as_ref() == Some(&node) {
        return match path.parse::<Uri>() {
            Ok(uri) => {
                parts.uri = uri;
                // The router leaves what it matched in the extensions: only the caller may pass to the second match.
                let caller = parts.extensions.remove::<Caller>();
                parts.extensions.clear();
                if let Some(caller) = caller {
                    parts.extensions.insert(caller);
                }
                match target.local.oneshot(Request::from_parts(parts, body)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => problem_response(&Problem::new(Code::Invalid, "cannot forward", error.to_string())),
        };
    }
    if let Some(Caller::Node(from)) = parts.extensions.get::<Caller>() {
        return problem_response(&Problem::new(
            Code::Forbidden,
            format!("node {from} asked this node to ask node {node}"),
            "requests are passed on once, by the node an operator talks to",
        ));
    }
    match to_bytes(body, PACKAGE_MAX).await {
        Ok(body) => raw(target.backend.forward(node, parts.method.to_string(), path, body.into()).await),
        Err(error) => {
            problem_response(&Problem::new(Code::TooLarge, "cannot read the request's body", error.to_string()))
        }
    }
}

/// `/v1/nodes/NODE/rest?query` → `/v1/rest?query`, still percent-encoded as it came.
fn beyond_node(uri: &Uri) -> Option<String> {
    let whole = uri.path_and_query()?.as_str();
    let (_, rest) = whole.strip_prefix("/v1/nodes/")?.split_once('/')?;
    Some(format!("/v1/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::beyond_node;

    #[test]
    fn the_rest_keeps_its_query_and_its_encoding() {
        let uri = "/v1/nodes/node2/modules/a%20b/log?lines=3&verbose=true".parse().expect("a URI");
        assert_eq!(beyond_node(&uri).as_deref(), Some("/v1/modules/a%20b/log?lines=3&verbose=true"));
    }
}
