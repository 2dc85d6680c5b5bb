"""Python types as JSON: the schema that a model follows, and the decoder of what it writes."""
