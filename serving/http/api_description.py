"""Examples of requests for the head of the API documentation; a test runs every line."""

from pneumo.serving.contracts.schemas import NOTICE

EXAMPLES = f"""
{NOTICE[0].upper()}{NOTICE[1:]}: not for diagnosis or treatment of anyone.

Images are JPEG, PNG, BMP, TIFF, WebP or DICOM. They are read in memory and never stored. Errors are
[problem documents](https://www.rfc-editor.org/rfc/rfc9457) that say how to fix them; after 429 and 503 wait for the
seconds in `Retry-After`.

### From a shell

```bash
export PNEUMO=http://127.0.0.1:8000 KEY=pneumo_...   # its address, and a key if it needs one

# one image
curl -H "X-API-Key: $KEY" -H "Content-Type: image/jpeg" --data-binary @xray.jpeg $PNEUMO/v1/predict

# several images; those that can be read are answered
curl -H "X-API-Key: $KEY" -F file=@xray.jpeg -F file=@xray.png "$PNEUMO/v1/predict?partial=true"

# a zip of images
curl -H "X-API-Key: $KEY" -H "Content-Type: application/zip" --data-binary @xrays.zip $PNEUMO/v1/predict

# base64 in JSON
printf '{{"images": [{{"filename": "1", "data": "%s"}}]}}' $(base64 < xray.jpeg | tr -d '[:space:]') |
  curl -H "X-API-Key: $KEY" -H "Content-Type: application/json" --data-binary @- $PNEUMO/v1/predict

# a heat map over the image
curl -H "X-API-Key: $KEY" -H "Content-Type: image/jpeg" --data-binary @xray.jpeg $PNEUMO/v1/explain -o heat.png
```

### From Python

`pip install '.[client]'` in a checkout of pneumo. The client splits many files into requests and sends four at a time.
It retries if the service is busy, and sends no file names.

```python
import os

from pneumo import Client

with Client(os.environ["PNEUMO"], key=os.environ["KEY"]) as client:
    client.wait_until_ready(60)
    for image in client.predict("xrays/"):
        print(image.filename, image.label, image.probability, image.certainty)
```

### From KServe's and Triton's clients

Send prepared images to `/v2/models/{{name}}/infer`, as values in JSON or, much faster, as bytes. `/v1/model` gives
name, version and preparation.
"""
