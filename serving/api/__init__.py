"""The HTTP API: one module a resource, and the models that OpenAPI is made of."""
