"""edge-reranker: an order that suits this user, made on this device."""
