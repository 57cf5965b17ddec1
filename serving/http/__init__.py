"""The HTTP application: routes, middleware, uploads, the Open Inference Protocol."""
