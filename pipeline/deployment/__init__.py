"""What takes an evaluated model to where people use it: a Space, an image, a registry, a machine, a cluster.

    model.py            which model is meant, and what it says of itself
    bundle.py           what of this repository a server needs, as a folder that is built elsewhere
    space_folder.py     the folder that a Space is made of, by its kind
    space_app.py        app.py of a Gradio Space
    account.py          what an account on the Hub may make
    space.py            a Space on the Hub: made, told its secrets, waited for
    image.py            an image with the model inside: built, asked, tagged
    question.py         the question that a server is asked before it counts
    oci_artifact.py     a GGUF file as Docker Model Runner and llama-server pull it
    oci_registry.py     a registry that it is sent to
    service.py          what a container of the server needs: settings, secrets by name, memory

Each target is a verb of `tunesmith deploy` (pipeline/cli/deploy.py) over a `run` in pipeline/commands.
"""
