"""``python -m airflow_provider_cdf.demo`` is ``cdf-demo``."""

import sys

from airflow_provider_cdf.demo import main

sys.exit(main())
