resource "aws_dynamodb_table" "users" {
  #checkov:skip=CKV_AWS_119:encrypted with the key that AWS manages in this account; with another key the role of the pods needs KMS actions
  name         = "${var.name}-users"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "id"

  attribute {
    name = "id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  # The key that AWS manages for DynamoDB in this account: no monthly fee, logged in
  # CloudTrail, and usable by everyone who may use the table. KMS charges its requests,
  # which are few, because DynamoDB caches data keys.
  server_side_encryption {
    enabled = true
  }

  deletion_protection_enabled = var.deletion_protection

  tags = { Name = "${var.name}-users" }

  # A restored table has another name, and takes the place of the first by import.
  lifecycle {
    ignore_changes = [name]
  }
}

# Bucket names are unique across AWS: the provider adds a random suffix.
resource "aws_s3_bucket" "avatars" {
  #checkov:skip=CKV_AWS_18:the service logs each request, and CloudTrail of the account logs others
  #checkov:skip=CKV_AWS_144:a stack has one region; versions protect against mistakes
  #checkov:skip=CKV_AWS_145:encrypted with the key of S3; with a KMS key each image costs a call to KMS
  #checkov:skip=CKV2_AWS_62:no consumer of events
  bucket_prefix = "${var.name}-avatars-"
  force_destroy = !var.deletion_protection

  tags = { Name = "${var.name}-avatars" }
}

resource "aws_s3_bucket_ownership_controls" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "DenyPlainHTTP"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.avatars.arn, "${aws_s3_bucket.avatars.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "DenyOldTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.avatars.arn, "${aws_s3_bucket.avatars.arn}/*"]
        Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      },
    ]
  })

  # S3 rejects concurrent changes of a bucket's access.
  depends_on = [aws_s3_bucket_public_access_block.avatars]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Objects are never overwritten. Replaced and deleted images stay restorable as
# noncurrent versions.
resource "aws_s3_bucket_versioning" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    id     = "expire-old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    # Delete markers without versions.
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "abort-broken-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.avatars]
}
