"""The app of tools/app.py. Only `page` needs gradio."""
