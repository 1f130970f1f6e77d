//! Who has a token, and whether he may read metrics: every answer that a server may give.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Review;
use super::server::{Answer, Quiet, Seen, World, empty, status};

const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const SECRET: &str = "eyJhbGciOi.the-token-of.a-scraper";

type Says = Arc<Mutex<dyn FnMut(&Seen) -> Answer + Send>>;

/// A server that answers reviews as the test says, and nothing else of interest.
async fn world(says: impl FnMut(&Seen) -> Answer + Send + 'static) -> World {
    let says: Says = Arc::new(Mutex::new(says));
    let mut quiet = Quiet::default();
    World::new(move |seen| match seen.path.as_str() {
        TOKENS | ACCESS => (says.lock().unwrap())(seen),
        _ => empty(seen, &mut quiet),
    })
    .await
}

/// As an API server answers: with the question in it.
fn reviewed(seen: &Seen, status: Value) -> Answer {
    let mut answer = seen.body.clone();
    answer["status"] = status;
    Answer::Json(201, answer)
}

fn known(seen: &Seen) -> Answer {
    let user = json!({"username": "system:serviceaccount:monitoring:prometheus", "uid": "u-1",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["prometheus-0"]}});
    reviewed(seen, json!({"authenticated": true, "user": user, "audiences": ["kubernetes"]}))
}

async fn ask(world: &World) -> Result<Review, String> {
    world.reviewer.as_ref().expect("a reviewer").review(SECRET).await
}

#[tokio::test]
async fn who_may_is_let_through_and_asked_about_again_after_two_minutes() {
    let world = world(|seen| match seen.path.as_str() {
        TOKENS => known(seen),
        _ => reviewed(seen, json!({"allowed": true})),
    })
    .await;
    assert_eq!(ask(&world).await, Ok(Review::Allowed));
    assert_eq!(ask(&world).await, Ok(Review::Allowed));
    let (tokens, access) = (world.of(TOKENS), world.of(ACCESS));
    assert_eq!((tokens.len(), access.len()), (1, 1), "the second is answered from memory");
    assert_eq!((tokens[0].method.as_str(), &tokens[0].body["kind"]), ("POST", &json!("TokenReview")));
    assert_eq!(tokens[0].body["spec"], json!({"token": SECRET}));
    // All that authorizers may look at goes on to them, and the token does not.
    assert_eq!(
        access[0].body["spec"],
        json!({
            "user": "system:serviceaccount:monitoring:prometheus", "uid": "u-1",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/pod-name": ["prometheus-0"]},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        })
    );
    World::pass(Duration::from_secs(121)).await;
    assert_eq!(ask(&world).await, Ok(Review::Allowed));
    assert_eq!((world.of(TOKENS).len(), world.of(ACCESS).len()), (2, 2));
}

#[tokio::test]
async fn whoever_is_not_known_is_not_asked_about_further() {
    for says in [
        json!({}),
        json!({"authenticated": false, "error": "invalid bearer token"}),
        json!({"authenticated": true}),
        json!({"authenticated": true, "user": {"username": ""}}),
    ] {
        let world = world(move |seen| reviewed(seen, says.clone())).await;
        assert_eq!(ask(&world).await, Ok(Review::Unknown));
        assert_eq!(ask(&world).await, Ok(Review::Unknown));
        assert_eq!((world.of(TOKENS).len(), world.of(ACCESS).len()), (1, 0));
        World::pass(Duration::from_secs(31)).await;
        assert_eq!(ask(&world).await, Ok(Review::Unknown));
        assert_eq!(world.of(TOKENS).len(), 2, "a token may become good");
    }
}

#[tokio::test]
async fn who_may_not_is_told_his_name() {
    for says in [json!({"allowed": false}), json!({}), json!({"allowed": true, "denied": true})] {
        let world = world(move |seen| match seen.path.as_str() {
            TOKENS => known(seen),
            _ => reviewed(seen, says.clone()),
        })
        .await;
        let denied = Review::Denied("system:serviceaccount:monitoring:prometheus".into());
        assert_eq!(ask(&world).await, Ok(denied.clone()));
        assert_eq!(ask(&world).await, Ok(denied));
        assert_eq!(world.of(ACCESS).len(), 1);
    }
}

/// What an error must say, and what makes it.
type Trouble = (&'static str, fn(&Seen) -> Answer);

/// Nothing is taken for an answer that is none, and none of it shows the token.
#[tokio::test]
async fn no_answer_lets_nobody_through() {
    let page = |code, body: String| Answer::Raw { status: code, content_type: "text/html", headers: Vec::new(), body };
    let troubles: [Trouble; 5] = [
        ("500", |_| status(500, "InternalError")),
        ("403", |_| status(403, "Forbidden")),
        ("401", |_| status(401, "Unauthorized")),
        ("not what the API has", |seen| Answer::Json(200, json!({"status": SECRET, "spec": seen.body["spec"]}))),
        ("not what the API has", |seen| Answer::Json(201, seen.body.clone())),
    ];
    for (says, trouble) in troubles {
        for at in [TOKENS, ACCESS] {
            let world = world(move |seen| match seen.path.as_str() {
                path if path == at => trouble(seen),
                TOKENS => known(seen),
                _ => reviewed(seen, json!({"allowed": true})),
            })
            .await;
            let error = ask(&world).await.expect_err(says);
            assert!(error.contains(says) && !error.contains(SECRET), "{error}");
            let before = world.of(TOKENS).len();
            ask(&world).await.expect_err("still");
            assert_eq!(world.of(TOKENS).len(), before + 1, "{says} is not kept");
        }
    }
    let world = world(move |seen| page(502, format!("<p>{}", seen.body["spec"]["token"]))).await;
    let error = ask(&world).await.expect_err("a proxy");
    assert!(error.contains("502") && !error.contains(SECRET), "{error}");
    assert!(!format!("{:?}", world.reviewer).contains(SECRET));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let world = world(|_| {
        // Its sender lives on: neither bytes nor an end.
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        std::mem::forget(sender);
        Answer::Stream(receiver)
    })
    .await;
    let reviewer = world.reviewer.as_ref().expect("a reviewer");
    let asked = reviewer.review(SECRET);
    tokio::pin!(asked);
    tokio::select! {
        early = &mut asked => panic!("{early:?}"),
        () = async { while world.of(TOKENS).is_empty() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    World::pass(Duration::from_secs(9)).await;
    assert_eq!(asked.await, Err("no answer in 8 s".to_owned()));
}

#[tokio::test]
async fn nobody_at_the_address_lets_nobody_through() {
    let world = World::alone(tempfile::tempdir().unwrap()).await;
    ask(&world).await.expect_err("nobody is there");
}

#[tokio::test]
async fn several_who_show_one_token_at_a_time_cost_one_question() {
    let world = world(|seen| match seen.path.as_str() {
        TOKENS => known(seen),
        _ => reviewed(seen, json!({"allowed": true})),
    })
    .await;
    let all = futures_util::future::join_all((0..5).map(|_| ask(&world))).await;
    assert!(all.iter().all(|review| *review == Ok(Review::Allowed)), "{all:?}");
    assert_eq!((world.of(TOKENS).len(), world.of(ACCESS).len()), (1, 1));
}
