"""How Outlast is deployed, read from the Dockerfile, docker-compose.yml and the manifests; and the rules for them."""
