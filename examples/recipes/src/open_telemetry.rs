//! An OpenTelemetry context: a span that a task starts is a child of its request's. The middleware that starts the request's span is
//! outside of our layer.

use opentelemetry::{Context, trace::TraceContextExt};
use tower_background_tasks::{Runner, RunnerBuilder};

/// Takes the context of the request, with its baggage.
pub fn builder() -> RunnerBuilder {
    Runner::builder()
        .capture(|_| {
            let request = Context::current();
            // The ids of the request's span. The span itself would stay open
            // until the tasks have ended.
            let span = request.span().span_context().clone();
            Some(request.with_remote_span_context(span))
        })
        .around(|cx, next| {
            let request = cx.get::<Context>();
            let _attached = request.map(|request| request.clone().attach());
            next.run()
        })
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        extract::Request,
        middleware::{Next, from_fn},
        routing::get,
    };
    use opentelemetry::{
        context::FutureExt,
        trace::{Tracer, TracerProvider},
    };
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider};
    use tokio::task::yield_now;
    use tower_background_tasks::BackgroundTasks;

    use super::*;
    use crate::support::send;

    fn app(runner: &Runner, tracer: SdkTracer) -> Router {
        let of_request = tracer.clone();
        let handler = async move |tasks: BackgroundTasks| {
            let of_mail = tracer.clone();
            tasks.add_task(async move {
                yield_now().await;
                of_mail.in_span("mail", |_| ());
            });
            tasks.add_blocking_task(move || tracer.in_span("print", |_| ()));
        };
        let traced = from_fn(move |request: Request, next: Next| {
            let span = of_request.start("request");
            next.run(request)
                .with_context(Context::current_with_span(span))
        });
        Router::new()
            .route("/", get(handler))
            .layer(runner.layer())
            .layer(traced)
    }

    #[tokio::test]
    async fn a_span_of_a_task_is_a_child_of_its_requests() {
        let (runner, exporter) = (builder().build(), InMemorySpanExporter::default());
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let tracer = provider.tracer("recipes");
        send(app(&runner, tracer), &runner, ("accept", "*/*")).await;

        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["request", "mail", "print"]);
        let request = &spans[0].span_context;
        for of_task in &spans[1..] {
            assert_eq!(of_task.span_context.trace_id(), request.trace_id());
            assert_eq!(of_task.parent_span_id, request.span_id());
        }
    }
}
