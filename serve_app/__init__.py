"""HTTP in front of the core: surfaces parse, call the gateway, translate.

    request ─▶ edge (under Serve only) ─▶ front ─▶ CORS ─▶ FastAPI routes ─▶ surfaces/<name> ─▶ gateway

`front` gives every request its id and measures it, `auth` says who asks, `limits` how often, `problems`
turns errors into statuses, and a surface speaks the words of its own contract. `app` puts it together
and holds the Serve deployment. Everything but `app.deploy`, `gateway` and `cli` runs without Ray.
"""
