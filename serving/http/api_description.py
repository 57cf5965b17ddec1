"""How to ask the service, for the first lines of its documentation; a test runs every line."""

from pneumo.serving.contracts.schemas import NOTICE

EXAMPLES = f"""
{NOTICE[0].upper()}{NOTICE[1:]}: not for diagnosis or treatment of anyone.

Images are JPEG, PNG, BMP, TIFF, WebP or DICOM. They are read in memory and never kept. Errors are
[problem documents](https://www.rfc-editor.org/rfc/rfc9457) that say how to mend them; 429 and 503 say in `Retry-After`
when to come again.

### From a shell

```bash
export PNEUMO=http://127.0.0.1:8000 KEY=pneumo_...   # where it is, and a key where one is asked for

# one image
curl -H "X-API-Key: $KEY" -H "Content-Type: image/jpeg" --data-binary @xray.jpeg $PNEUMO/v1/predict

# many, and an answer also where some of them cannot be read
curl -H "X-API-Key: $KEY" -F file=@xray.jpeg -F file=@xray.png "$PNEUMO/v1/predict?partial=true"

# a zip of images
curl -H "X-API-Key: $KEY" -H "Content-Type: application/zip" --data-binary @xrays.zip $PNEUMO/v1/predict

# base64 in JSON
printf '{{"images": [{{"filename": "1", "data": "%s"}}]}}' $(base64 < xray.jpeg | tr -d '[:space:]') |
  curl -H "X-API-Key: $KEY" -H "Content-Type: application/json" --data-binary @- $PNEUMO/v1/predict

# where the model looked
curl -H "X-API-Key: $KEY" -H "Content-Type: image/jpeg" --data-binary @xray.jpeg $PNEUMO/v1/explain -o heat.png
```

### From Python

`pip install '.[client]'` in a checkout of pneumo. It cuts many files into requests, sends four at a time, waits where
the service is busy, and leaves the names of files at home.

```python
import os

from pneumo import Client

with Client(os.environ["PNEUMO"], key=os.environ["KEY"]) as client:
    client.wait_until_ready(60)
    for image in client.predict("xrays/"):
        print(image.filename, image.label, image.probability, image.certainty)
```

### From KServe's and Triton's clients

Images that are prepared already go to `/v2/models/{{name}}/infer`, as values in JSON or, much quicker, as bytes; name,
version and preparation are in `/v1/model`.
"""
"""Markdown for the description of the application."""
