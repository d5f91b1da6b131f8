//! The whole app without a socket: an order that commits, one that fails, and one whose client leaves.

use std::sync::{Arc, Mutex};

use axum::{body::Body, http::Request};
use tokio::task::yield_now;
use tower::ServiceExt;

use super::*;

const NOT_RELEASED: &str = "receipt: skipped: it was held and not released";

struct Shop {
    runner: Runner,
    database: SqlitePool,
    ends: Arc<Mutex<Vec<String>>>,
}

impl Shop {
    async fn open() -> Self {
        let ends = Arc::<Mutex<Vec<_>>>::default();
        let told = Arc::clone(&ends);
        let builder = Runner::builder().on_task_end(move |report| {
            let end = format!("{}: {}", report.name(), report.end());
            told.lock().unwrap().push(end);
        });
        Self {
            runner: builder.build(),
            database: open().await.unwrap(),
            ends,
        }
    }

    /// How the tasks have ended, once all have.
    async fn ends(&self) -> Vec<String> {
        self.runner.idle().await;
        self.ends.lock().unwrap().clone()
    }

    /// What a client of `POST uri` gets.
    async fn post(&self, uri: &str) -> StatusCode {
        let app = app(&self.runner, self.database.clone());
        let request = Request::post(uri).body(Body::empty()).unwrap();
        app.oneshot(request).await.unwrap().status()
    }

    async fn orders(&self) -> i64 {
        let sql = "SELECT count(*) FROM orders";
        let count = sqlx::query_scalar(sql).fetch_one(&self.database);
        count.await.unwrap()
    }
}

#[tokio::test]
async fn an_order_that_commits_has_its_receipt() {
    let shop = Shop::open().await;
    assert_eq!(shop.post("/orders/lamp").await, StatusCode::OK);
    assert_eq!(shop.ends().await, ["receipt: completed"]);
    assert_eq!(shop.orders().await, 1);
}

#[tokio::test]
async fn an_order_that_fails_later_has_none() {
    let shop = Shop::open().await;
    assert_eq!(shop.post("/orders/moon").await, StatusCode::CONFLICT);
    assert_eq!(shop.ends().await, [NOT_RELEASED]);
    assert_eq!(shop.orders().await, 0);
    assert_eq!(shop.runner.stats().skipped, 1);
}

#[tokio::test]
async fn an_order_whose_client_leaves_before_the_commit_has_none() {
    let shop = Shop::open().await;
    let added = async {
        while shop.runner.stats().awaiting_response == 0 {
            yield_now().await;
        }
    };
    tokio::select! {
        _ = shop.post("/orders/lamp?seconds=60") => panic!("it has not left"),
        () = added => {}
    }
    assert_eq!(shop.ends().await, [NOT_RELEASED]);
    assert_eq!(shop.orders().await, 0);
    assert_eq!(shop.runner.stats().skipped, 1);
}
